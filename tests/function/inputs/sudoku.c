/* Sudoku, by sets of bits and search where the fewest values are possible; and the queens that do not attack each other. */
enum { SIDE = 9, CELLS = SIDE * SIDE, ALL = (1 << SIDE) - 1 };

struct board {
	u32 row[SIDE], column[SIDE], square[SIDE];
	u8 cell[CELLS];
	long tried;
};

static int count_bits(u32 bits)
{
	int count = 0;

	for (; bits; bits &= bits - 1)
		count++;
	return count;
}

static u32 possible(const struct board *board, int at)
{
	int row = at / SIDE, column = at % SIDE;

	return ALL & ~(board->row[row] | board->column[column] | board->square[row / 3 * 3 + column / 3]);
}

/* Sets a value, or takes it away again. */
static void toggle(struct board *board, int at, int value)
{
	int row = at / SIDE, column = at % SIDE;
	u32 bit = 1u << (value - 1);

	board->row[row] ^= bit;
	board->column[column] ^= bit;
	board->square[row / 3 * 3 + column / 3] ^= bit;
	board->cell[at] = board->cell[at] ? 0 : (u8)value;
}

static bool solve(struct board *board)
{
	int best = -1, fewest = SIDE + 1;

	for (int at = 0; at < CELLS; at++) {
		int count;

		if (board->cell[at])
			continue;
		count = count_bits(possible(board, at));
		if (count < fewest) {
			fewest = count;
			best = at;
		}
	}
	if (best < 0)
		return true;
	for (int value = 1; value <= SIDE; value++) {
		if (!(possible(board, best) >> (value - 1) & 1))
			continue;
		board->tried++;
		toggle(board, best, value);
		if (solve(board))
			return true;
		toggle(board, best, value);
	}
	return false;
}

static bool read_board(struct board *board, const char *text)
{
	memset(board, 0, sizeof(*board));
	for (int at = 0; at < CELLS; at++) {
		if (text[at] == '.')
			continue;
		if (!(possible(board, at) >> (text[at] - '1') & 1))
			return false;
		toggle(board, at, text[at] - '0');
	}
	return true;
}

static long queens(u32 columns, u32 rising, u32 falling, int left)
{
	long found = 0;

	if (!left)
		return 1;
	for (u32 free = ALL & ~(columns | rising | falling); free; free &= free - 1) {
		u32 place = free & -free;

		found += queens(columns | place, (rising | place) << 1, (falling | place) >> 1, left - 1);
	}
	return found;
}

static bool check_sudoku(void)
{
	static const char puzzle[] =
		"53..7...." "6..195..." ".98....6." "8...6...3" "4..8.3..1" "7...2...6" ".6....28." "...419..5" "....8..79";
	static const char solved[] =
		"534678912" "672195348" "198342567" "859761423" "426853791" "713924856" "961537284" "287419635" "345286179";
	struct board *board = take(sizeof(*board));

	CHECK(read_board(board, puzzle) && solve(board));
	for (int at = 0; at < CELLS; at++)
		CHECK(board->cell[at] == solved[at] - '0');
	CHECK(board->tried >= 51);
	CHECK(!read_board(board, "55" "......." "........." "........." "........." "........." "........." "........." "........." "........."));
	CHECK(queens(0, 0, 0, SIDE) == 352);
	return true;
}

