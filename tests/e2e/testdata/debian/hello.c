#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
	char line[100] = "";
	FILE *f = argc > 1 ? fopen(argv[1], "r") : NULL;
	if (f) fgets(line, sizeof line, f);
	printf("%s: %s", getenv("GREETING"), line);
	return 0;
}
