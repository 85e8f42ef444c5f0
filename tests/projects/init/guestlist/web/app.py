import os
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer


def redis(*words):
    with socket.create_connection((os.environ["REDIS_HOST"], 6379), timeout=2) as store:
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        store.sendall(f"*{len(words)}\r\n{parts}".encode())
        return store.recv(1024).decode().strip(":\r\n")


class Door(BaseHTTPRequestHandler):
    def do_GET(self):
        guests = int(redis("INCR", "guests"))
        self.send_response(200 if guests <= int(os.environ["CAPACITY"]) else 503)
        self.end_headers()
        self.wfile.write(f"{os.environ['TITLE']}: {guests}\n".encode())


assert os.environ["SECRET_KEY"]
HTTPServer(("", 8000), Door).serve_forever()
