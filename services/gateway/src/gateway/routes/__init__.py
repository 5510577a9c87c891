"""The HTTP side, a file per part of the interface. docs/http.md shows it as a user meets it."""
