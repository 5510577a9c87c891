"""Where a service listens, and is looked for, unless it is told otherwise; and the names of this machine alone."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PORT = 8787
DEFAULT_SERVER = f"http://{LOOPBACK[0]}:{PORT}"
