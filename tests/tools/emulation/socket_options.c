/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Preloaded into an aarch64 program under qemu-user, which knows how to attach a filter to a socket, but not how to detach
 * or read one (SO_DETACH_FILTER, SO_GET_FILTER) or to read what a socket dropped (SO_MEMINFO). For these three the socket
 * is sent to socket_options.py outside of the emulator, which calls the kernel. APIBAN_SOCKET_OPTIONS names its socket.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif

/* A program of 4,096 instructions is the longest answer. */
enum { LONGEST = 4096 * 8 };

struct question {
	int option;
	unsigned length;
};

struct answer {
	int error;
	unsigned length;
	unsigned char bytes[LONGEST];
};

static int ask(int fd, int option, void *value, socklen_t *length)
{
	static __thread struct answer answer;
	struct question question = {option, *length};
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct iovec part = {&question, sizeof(question)};
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control.room),
	};
	const char *path = getenv("APIBAN_SOCKET_OPTIONS");
	ssize_t got = -1;
	int link = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
	if (path != 0 && strlen(path) < sizeof(to.sun_path)) {
		strcpy(to.sun_path, path);
		if (link >= 0 && connect(link, (struct sockaddr *)&to, sizeof(to)) == 0
				&& sendmsg(link, &message, 0) == (ssize_t)sizeof(question)) {
			got = recv(link, &answer, sizeof(answer), 0);
		}
	}
	if (link >= 0) {
		close(link);
	}
	if (got < 8) {
		errno = ENOTSUP;
		return -1;
	}
	if (answer.error != 0) {
		errno = answer.error;
		return -1;
	}
	if (got > 8) {
		memcpy(value, answer.bytes, (size_t)got - 8);
	}
	*length = answer.length;
	return 0;
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	socklen_t nothing = 0;

	if (level == SOL_SOCKET && option == SO_DETACH_FILTER) {
		return ask(fd, option, 0, &nothing);
	}
	return (int)syscall(SYS_setsockopt, fd, level, option, value, length);
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
	if (level == SOL_SOCKET && (option == SO_GET_FILTER || option == SO_MEMINFO)) {
		return ask(fd, option, value, length);
	}
	return (int)syscall(SYS_getsockopt, fd, level, option, value, length);
}
