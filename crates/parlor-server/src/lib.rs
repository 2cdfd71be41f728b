//! The doors of Parlor: HTTP, WebSocket, configuration, background jobs, and the binary.
