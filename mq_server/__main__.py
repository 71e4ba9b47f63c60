"""`python -m mq_server` is `mq`."""

from mq_server.cli import main

main()
