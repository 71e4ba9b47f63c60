// What the page asks of the server. One session: its token goes with every post.

export let session = null;

export class Failure extends Error {}

async function answer(response) {
  const content = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw Object.assign(new Failure(content.error), { status: response.status, faults: content.faults });
  return content;
}

/** `get("feed", { channel: ["a", "b"], limit: 60 })`. */
export async function get(name, parameters = {}, options = {}) {
  const asked = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters))
    for (const each of [value].flat()) if (each !== null && each !== undefined && each !== "") asked.append(key, each);
  return answer(await fetch(`/api/${name}?${asked}`, options));
}

/** Begin, or begin again after the server did. */
export async function begin() {
  session = await get("session");
  return session;
}

/** Change something. A token of a server that is no more is exchanged once. */
export async function post(name, fields) {
  const send = () =>
    fetch(`/api/${name}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Mq-Token": session.token ?? "" },
      body: JSON.stringify(fields),
    });
  let response = await send();
  if (response.status === 403 && !session.read_only) {
    await begin();
    response = await send();
  }
  return answer(response);
}
