/* What the process holds, and what the machine, its control group and the disk have
 * free. */
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "ist.h"
#include "train/plan.h"

/* A figure in kB from a file of /proc, in bytes; 0 when it is not there. */
static int64_t proc_kb(const char *path, const char *field) {
  FILE *f = fopen(path, "re");
  if (!f) return 0;
  char line[256];
  long long kb = 0;
  size_t len = strlen(field);
  while (fgets(line, sizeof line, f)) {
    if (strncmp(line, field, len) == 0 && sscanf(line + len, ": %lld", &kb) == 1) break;
    kb = 0;
  }
  fclose(f);
  return kb * 1024;
}

int64_t ist_memory_resident(const void *file, size_t bytes) {
  if (file) ist_pages_drop(file, bytes);
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  return proc_kb("/proc/self/status", "VmRSS");
}

/* A number that stands alone in a file; 0 where there is none ("max" too). */
static int64_t number_in(const char *path) {
  FILE *f = fopen(path, "re");
  long long v = 0;
  if (f && fscanf(f, "%lld", &v) != 1) v = 0;
  if (f) fclose(f);
  return v;
}

/* What a control group leaves: its limit less what is not page cache. `mount`, then the
 * group's own folder; version 1 and 2 call the files differently. */
static int64_t group_free(const char *dir, bool v2) {
  char path[600], line[128];
  snprintf(path, sizeof path, "%s/%s", dir, v2 ? "memory.max" : "memory.limit_in_bytes");
  int64_t limit = number_in(path), held = 0;
  if (limit <= 0 || limit > INT64_C(1) << 50) return 0;
  snprintf(path, sizeof path, "%s/memory.stat", dir);
  FILE *f = fopen(path, "re");
  while (f && fgets(line, sizeof line, f)) {
    long long v;
    if (sscanf(line, v2 ? "anon %lld" : "total_rss %lld", &v) == 1) held = v;
  }
  if (f) fclose(f);
  return limit > held ? limit - held : 1;
}

/* The process's own memory control group; 0 where it has no limit. */
static int64_t control_group_free(void) {
  char line[512], dir[560];
  int64_t found = 0;
  FILE *f = fopen("/proc/self/cgroup", "re");
  while (f && fgets(line, sizeof line, f)) {
    line[strcspn(line, "\n")] = '\0';
    bool v2 = strncmp(line, "0::", 3) == 0;
    const char *v1 = strstr(line, ":memory:");
    if (!v2 && !v1) continue;
    snprintf(dir, sizeof dir, v2 ? "/sys/fs/cgroup%s" : "/sys/fs/cgroup/memory%s",
             v2 ? line + 3 : v1 + 8);
    int64_t left = group_free(dir, v2);
    if (left) found = left;
  }
  if (f) fclose(f);
  return found;
}

int64_t ist_memory_free(void) {
  int64_t machine = proc_kb("/proc/meminfo", "MemAvailable"), group = control_group_free();
  return group && (!machine || group < machine) ? group : machine;
}

int64_t ist_disk_free(const char *dir) {
  char path[4096];
  struct statvfs fs;
  if (snprintf(path, sizeof path, "%s", dir) >= (int)sizeof path) return 0;
  while (statvfs(path, &fs) != 0) { /* not made yet: the folder above it */
    char *slash = strrchr(path, '/');
    if (strcmp(path, ".") == 0 || strcmp(path, "/") == 0) return 0;
    if (!slash)
      strcpy(path, ".");
    else if (slash == path)
      strcpy(path, "/");
    else
      *slash = '\0';
  }
  int64_t bytes = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
  return bytes > 0 ? bytes : 1;
}

int64_t ist_peak_memory(void) {
  return proc_kb("/proc/self/status", "VmHWM");
}
