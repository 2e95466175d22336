package controlv1

// SocketName is the file in the agent's run directory through which the API is open.
const SocketName = "control.sock"

// URL is what requests through the socket are addressed to. It names no host: whom they reach, the socket says.
const URL = "http://bailey"
