/* The small program. */
static bool (*const checks[])(void) = { check_expression, check_sort };

void enter(void)
{
	bool good = true;

	for (size_t i = 0; i < COUNT(checks); i++) {
		heap_used = 0;
		good = checks[i]() && good;
	}
	put_text(good ? "good\n" : "bad\n");
	leave(!good);
}
