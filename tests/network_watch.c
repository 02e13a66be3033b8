/* Preloaded into a command: every look-up of a name and every connection beyond this machine is written to the file
   NETWORK_WATCH, with the function and its target, and refused. Native libraries are seen as well as Python. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void tell(const char *function, const char *target) {
    char line[512];
    const char *path = getenv("NETWORK_WATCH");
    int n = snprintf(line, sizeof line, "%s %s\n", function, target);
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (file >= 0) {
        if (write(file, line, n < (int)sizeof line ? n : (int)sizeof line - 1) < 0) perror("NETWORK_WATCH");
        close(file);
    }
}

static int is_here(const char *name) {
    char own[256] = "";
    gethostname(own, sizeof own - 1);
    return !name || !*name || !strcmp(name, own) || !strncmp(name, "localhost", 9) || !strncmp(name, "127.", 4) ||
           !strcmp(name, "::1") || !strcmp(name, "::") || !strcmp(name, "0.0.0.0");
}

static int is_away(const char *function, const struct sockaddr *address) {
    char name[INET6_ADDRSTRLEN] = "";
    if (!address) return 0;
    if (address->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, name, sizeof name);
    else if (address->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, name, sizeof name);
    else
        return 0;
    if (is_here(name) || !strncmp(name, "::ffff:127.", 11)) return 0;
    tell(function, name);
    errno = ENETUNREACH;
    return 1;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    if (is_here(name)) return real(name, service, hints, result);
    tell("getaddrinfo", name);
    return EAI_AGAIN;
}

struct hostent *gethostbyname(const char *name) {
    struct hostent *(*real)(const char *) = dlsym(RTLD_NEXT, "gethostbyname");
    if (is_here(name)) return real(name);
    tell("gethostbyname", name);
    h_errno = TRY_AGAIN;
    return NULL;
}

int connect(int file, const struct sockaddr *address, socklen_t length) {
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    return is_away("connect", address) ? -1 : real(file, address, length);
}

ssize_t sendto(int file, const void *data, size_t n, int flags, const struct sockaddr *address, socklen_t length) {
    ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
    return is_away("sendto", address) ? -1 : real(file, data, n, flags, address, length);
}
