/* The large program. */
static bool (*const checks[])(void) = {
	check_expression,
	check_sort,
	check_lz,
	check_sha256,
	check_json,
	check_huffman,
	check_pattern,
	check_bignum,
	check_tree,
	check_sudoku,
};

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
