/* First process of a test guest: loads the modules, looks at the disks, ends the machine. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void load_modules(void)
{
	char line[256], path[300];
	FILE *order = fopen("/modules/order", "r");
	while (order && fgets(line, sizeof line, order)) {
		line[strcspn(line, "\n")] = 0;
		snprintf(path, sizeof path, "/modules/%s", line);
		int fd = open(path, O_RDONLY);
		if (syscall(SYS_finit_module, fd, "", 0))
			printf("cannot load %s: %s\n", line, strerror(errno));
		close(fd);
	}
}

static void see(const char *disk, const char *device, const char *at, const char *type, const char *file)
{
	mkdir(at, 0755);
	if (mount(device, at, type, *type == 's' ? MS_RDONLY : 0, ""))
		printf("%s: cannot mount: %s\n", disk, strerror(errno));
	else if (!file)
		printf("%s: %s\n", disk, mkdir("/s/made", 0755) ? strerror(errno) : "written");
	else
		printf("%s: %s\n", disk, access(file, X_OK) ? strerror(errno) : file);
}

int main(void)
{
	mount("proc", "/proc", "proc", 0, 0);
	mount("sysfs", "/sys", "sysfs", 0, 0);
	mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
	load_modules();
	see("helper", "/dev/vda", "/h", "squashfs", "/h/usr/bin/git");
	see("image", "/dev/vdb", "/i", "squashfs", "/i/bin/bash");
	see("scratch", "/dev/vdc", "/s", "ext4", 0);
	int online = open("/sys/devices/system/cpu/cpu1/online", O_WRONLY);
	if (online >= 0 && write(online, "1", 1) != 1)
		printf("cannot start a CPU: %s\n", strerror(errno));
	printf("CPUs: %ld\nend\n", sysconf(_SC_NPROCESSORS_ONLN));
	fflush(stdout);
	umount("/s");
	reboot(RB_AUTOBOOT);
	return 1;
}
