// Dark or light. The style sheets follow the system (`prefers-color-scheme`); a choice made here rewrites those rules'
// conditions, so that messages have one style sheet, here and in exports.

const KEY = "mq-theme";
const SYSTEM = "(prefers-color-scheme: light)";
const conditions = new Map();

function lightRules() {
  if (!conditions.size) {
    for (const sheet of document.styleSheets)
      for (const rule of sheet.cssRules)
        if (rule instanceof CSSMediaRule && rule.conditionText.includes("prefers-color-scheme"))
          conditions.set(rule, rule.media.mediaText);
  }
  return conditions;
}

/** Show a theme: "light", "dark", or null for the system's. */
export function show(theme) {
  for (const [rule, original] of lightRules())
    rule.media.mediaText = theme === "light" ? "all" : theme === "dark" ? "print" : original;
}

/** Change to the other theme, and remember it. */
export function toggle() {
  const current = localStorage.getItem(KEY) ?? (matchMedia(SYSTEM).matches ? "light" : "dark");
  const next = current === "light" ? "dark" : "light";
  localStorage.setItem(KEY, next);
  show(next);
  return next;
}

show(localStorage.getItem(KEY));
