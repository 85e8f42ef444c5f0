require("node:http").createServer((_, answer) => answer.end("open\n")).listen(process.env.PORT);
