"""In place of ssh, for a guest: `python ssh.py PORT HOST COMMAND...`."""

import base64
import socket
import sys


def main() -> int:
    """Runs the command in the guest; gives its exit status."""
    port, _host, *command = sys.argv[1:]
    with socket.create_connection(("127.0.0.1", int(port)), 600) as connection:
        connection.sendall(base64.b64encode(" ".join(command).encode()) + b"\n")
        connection.sendall(sys.stdin.buffer.read())
        connection.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    output, _, status = said.decode(errors="replace").rstrip("\n").rpartition("\n")
    print(output.rstrip("\n"))
    return int(status)


sys.exit(main())
