/* Freezes one thread of a process, as a bug in it would: freeze_thread PID NAME.
 *
 * The other threads go on, and so does the process's answer to signals. It ends with the
 * process; ended itself, it lets the thread go on. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>

static pid_t find(const char *pid, const char *name) {
  char path[300], comm[32];
  snprintf(path, sizeof path, "/proc/%s/task", pid);
  DIR *tasks = opendir(path);
  if (!tasks) return -1;
  for (struct dirent *task; (task = readdir(tasks));) {
    snprintf(path, sizeof path, "/proc/%s/task/%s/comm", pid, task->d_name);
    FILE *file = fopen(path, "r");
    if (!file) continue;
    int read = fscanf(file, "%31s", comm) == 1;
    fclose(file);
    if (read && strcmp(comm, name) == 0) {
      pid_t found = atoi(task->d_name);
      closedir(tasks);
      return found;
    }
  }
  closedir(tasks);
  return -1;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "freeze_thread PID NAME\n");
    return 2;
  }
  pid_t thread = find(argv[1], argv[2]);
  if (thread < 0) {
    fprintf(stderr, "process %s has no thread %s\n", argv[1], argv[2]);
    return 1;
  }
  int status;
  /* PTRACE_ATTACH would send a SIGSTOP, which stops all threads. */
  if (ptrace(PTRACE_SEIZE, thread, 0, 0) || ptrace(PTRACE_INTERRUPT, thread, 0, 0) ||
      waitpid(thread, &status, __WALL) != thread || !WIFSTOPPED(status)) {
    perror("ptrace");
    return 1;
  }
  printf("frozen: %d\n", thread);
  fflush(stdout);
  while (waitpid(thread, &status, __WALL) == thread && WIFSTOPPED(status))
    ;
  return 0;
}
