// A disk that takes as long as a file says: loaded before the C library (LD_PRELOAD), it takes the place of fdatasync.
//
// The file is named by SLOW_DISK_MS and has a number of milliseconds. Nothing is written through: a real disk would add what it
// takes itself, which is no fixed time.

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int fdatasync(int descriptor) {
  (void)descriptor;
  const char *name = getenv("SLOW_DISK_MS");
  FILE *file = name == NULL ? NULL : fopen(name, "r");
  long milliseconds = 0;
  if (file == NULL || fscanf(file, "%ld", &milliseconds) != 1) {
    fprintf(stderr, "slow-disk: SLOW_DISK_MS names no file with a number\n");
    abort();
  }
  fclose(file);
  struct timespec rest = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  while (nanosleep(&rest, &rest) == -1 && errno == EINTR) {
  }
  return 0;
}
