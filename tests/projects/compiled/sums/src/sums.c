/* A server of checksums: POST /crc32 answers with that of the body, a datagram to the same port with its own. One
 * request at a time, each within two seconds. */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "crc32.h"

enum { HEAD_SIZE = 8192, BODY_LIMIT = 1 << 20 };

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static int port_of(const char *text)
{
    char *end;
    long port = text ? strtol(text, &end, 10) : 8080;
    return text && (*end || port < 1 || port > 65535) ? 0 : (int)port;
}

static void limit_waiting(int connection)
{
    struct timeval limit = {.tv_sec = 2};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

static void answer(int client, const char *request, int status, const char *reason, const char *body)
{
    char text[512];
    int length = snprintf(text, sizeof text,
                          "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                          "Connection: close\r\n\r\n%s",
                          status, reason, strlen(body), body);
    printf("%s %d\n", request, status);
    if (send(client, text, (size_t)length, MSG_NOSIGNAL) < 0)
        perror("send");
}

/* What Content-Length says: 0 without one, -1 if it is no number or too much. */
static long body_size(const char *head)
{
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            char *end;
            long size = strtol(line + 15, &end, 10);
            return *end == '\r' && size >= 0 && size <= BODY_LIMIT ? size : -1;
        }
    }
    return 0;
}

/* Read up to the end of the head; the number of bytes read, some of the body among them, or -1. */
static ssize_t read_head(int client, char *head)
{
    size_t count = 0;
    head[0] = '\0';
    while (!strstr(head, "\r\n\r\n")) {
        ssize_t more = recv(client, head + count, HEAD_SIZE - 1 - count, 0);
        if (more <= 0)
            return -1;
        count += (size_t)more;
        head[count] = '\0';
    }
    return (ssize_t)count;
}

/* Sum up `size` bytes: the `have` that came with the head, then what follows. */
static void sum_body(int client, const char *request, const char *start, size_t have, size_t size)
{
    unsigned char part[4096];
    char text[64];
    have = have < size ? have : size;
    uint32_t sum = crc32(0, (const unsigned char *)start, have);
    for (size_t left = size - have; left; left -= have) {
        ssize_t more = recv(client, part, left < sizeof part ? left : sizeof part, 0);
        if (more <= 0)
            return;
        have = (size_t)more;
        sum = crc32(sum, part, have);
    }
    snprintf(text, sizeof text, "{\"crc32\": \"%08x\", \"bytes\": %zu}\n", (unsigned)sum, size);
    answer(client, request, 200, "OK", text);
}

static void serve(int client)
{
    char head[HEAD_SIZE];
    ssize_t count = read_head(client, head);
    if (count < 0)
        return;
    const char *body = strstr(head, "\r\n\r\n") + 4;
    long size = body_size(head);
    char *space = strchr(head, ' ');
    char *path = space ? space + 1 : head;
    path[strcspn(path, " \r\n")] = '\0'; /* from here on the head reads as "POST /crc32" */
    if (strcmp(path, "/healthz") == 0)
        answer(client, head, 200, "OK", "{\"status\": \"well\"}\n");
    else if (strcmp(path, "/crc32") != 0)
        answer(client, head, 404, "Not Found", "{}\n");
    else if (strncmp(head, "POST ", 5) != 0)
        answer(client, head, 405, "Method Not Allowed", "{}\n");
    else if (size < 0)
        answer(client, head, 413, "Content Too Large", "{}\n");
    else
        sum_body(client, head, body, (size_t)(head + count - body), (size_t)size);
}

static int check(int port)
{
    const char *request = "GET /healthz HTTP/1.0\r\n\r\n";
    char reply[16] = "";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    limit_waiting(server);
    if (server < 0 || connect(server, (struct sockaddr *)&address, sizeof address) != 0)
        return 1;
    send(server, request, strlen(request), MSG_NOSIGNAL);
    return recv(server, reply, sizeof reply - 1, MSG_WAITALL) < 12 || strncmp(reply + 9, "200", 3) != 0;
}

static int bind_to(int port, int type)
{
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int bound = socket(AF_INET, type, 0);
    if (bound < 0 || setsockopt(bound, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(bound, (struct sockaddr *)&address, sizeof address) != 0)
        return -1;
    return bound;
}

static void answer_datagrams(int bound)
{
    unsigned char bytes[2048];
    struct sockaddr_in from;
    while (!stopped) {
        socklen_t length = sizeof from;
        ssize_t count = recvfrom(bound, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &length);
        if (count < 0)
            continue;
        char text[16];
        int size = snprintf(text, sizeof text, "%08x\n", (unsigned)crc32(0, bytes, (size_t)count));
        sendto(bound, text, (size_t)size, 0, (struct sockaddr *)&from, length);
    }
}

int main(int argc, char **argv)
{
    int port = port_of(getenv("PORT"));
    if (!port || argc > 2 || (argc == 2 && strcmp(argv[1], "--check") != 0)) {
        fputs("usage: [PORT=8080] sums [--check]\n", stderr);
        return 2;
    }
    if (argc == 2)
        return check(port);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int listener = bind_to(port, SOCK_STREAM), datagrams = bind_to(port, SOCK_DGRAM);
    if (datagrams < 0 || listener < 0 || listen(listener, 16) != 0) {
        perror("cannot listen");
        return 1;
    }
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        return 1;
    }
    if (child == 0) {
        answer_datagrams(datagrams);
        return 0;
    }
    close(datagrams);
    printf("listening on port %d\n", port);
    while (!stopped) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) {
            if (errno != EINTR)
                perror("accept");
            continue;
        }
        limit_waiting(client);
        serve(client);
        close(client);
    }
    kill(child, SIGTERM);
    puts("stopped");
    return 0;
}
