/* The least that any server has to do: the same bytes to so many sockets, one system call each.
 * Returns how many took the whole frame. */
#include <sys/socket.h>

int send_loop(const int *sockets, int number, const char *frame, int size)
{
    int taken = 0;
    for (int at = 0; at < number; at++) {
        if (send(sockets[at], frame, size, MSG_NOSIGNAL | MSG_DONTWAIT) == size)
            taken++;
    }
    return taken;
}
