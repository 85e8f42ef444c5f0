require "socket"

server = TCPServer.new(4567)
loop do
  reader = server.accept
  reader.gets
  reader.write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nnews\n")
  reader.close
end
