/* The floor: one process that answers every message with a reply of N bytes, and does nothing else. echo PATH N */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct epoll_event event = {.events = EPOLLIN}, ready[64];
    static char reply[65536], request[65536];
    if (argc != 3) return 2;
    signal(SIGPIPE, SIG_IGN);
    int size = atoi(argv[2]), sock = socket(AF_UNIX, SOCK_STREAM, 0), set = epoll_create1(0);
    if (size < 1 || size > (int)sizeof reply) return 2;
    strncpy(at.sun_path, argv[1], sizeof at.sun_path - 1);
    if (bind(sock, (struct sockaddr *)&at, sizeof at) || listen(sock, 4096)) return 1;
    event.data.fd = sock;
    epoll_ctl(set, EPOLL_CTL_ADD, sock, &event);
    for (;;) {
        int count = epoll_wait(set, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == sock) {
                event.data.fd = accept(sock, NULL, NULL);
                if (event.data.fd >= 0) epoll_ctl(set, EPOLL_CTL_ADD, event.data.fd, &event);
            } else if (read(fd, request, sizeof request) <= 0 || write(fd, reply, size) < 0) {
                close(fd);
            }
        }
    }
}
