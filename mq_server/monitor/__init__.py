"""The monitor: a page that shows a production live, and lets people take part.

`routes` puts the parts together; `guard` says who is answered and how; `lookups` and `partaking` are the JSON API,
built on the façade alone; `events` is the stream of what is new; `fragments` turns messages into what the page shows,
by the same rendering as an export. `static` holds the page: HTML, style sheets and ES modules, used as they stand.
"""

from __future__ import annotations

from mq_server.monitor.routes import Monitor

__all__ = ["Monitor"]
