// What is new, as it happens. The browser comes back by itself with the last id it saw; where it gives up, or a
// connection is dead without a word, this opens the stream anew from there. A page nobody looks at lets go of its
// connection after a while, since a browser has few per server, and catches up when it is looked at.

const SILENT_MS = 25_000;
const RETRY_MS = 1000;
const UNWATCHED_MS = 300_000;

export class Live {
  /** `handlers` has hello, messages, merged, changed, lost, beat and state. */
  constructor(handlers) {
    this.handlers = handlers;
    this.place = null;
    this.timer = 0;
    this.open();
    let leaving = 0;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(leaving);
      if (document.hidden) leaving = setTimeout(() => this.close(), UNWATCHED_MS);
      else if (!this.source) this.open();
    });
  }

  close() {
    this.source?.close();
    this.source = null;
    clearTimeout(this.timer);
    this.handlers.state("resting");
  }

  open() {
    this.source?.close();
    const source = new EventSource(this.place ? `/events?since=${encodeURIComponent(this.place)}` : "/events");
    this.source = source;
    for (const name of ["hello", "messages", "merged", "changed", "lost", "beat"])
      source.addEventListener(name, (event) => {
        if (source !== this.source) return;
        if (event.lastEventId) this.place = event.lastEventId;
        this.alive();
        this.handlers[name](JSON.parse(event.data));
      });
    source.onopen = () => this.alive();
    source.onerror = () => {
      if (source !== this.source) return;
      this.handlers.state("lost");
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.open(), RETRY_MS);
      }
    };
    this.watch();
  }

  alive() {
    this.handlers.state("live");
    this.watch();
  }

  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.handlers.state("lost");
      this.open();
    }, SILENT_MS);
  }
}
