// A program that must not run: says so by its exit status.
int main(void) { return 42; }
