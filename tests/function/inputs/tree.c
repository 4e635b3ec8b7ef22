/* A map from names to numbers, an AA tree, and Dijkstra's shortest paths over a graph of named places. */
struct entry {
	const char *name;
	long value;
	int level;
	struct entry *left, *right;
};

static struct entry *skew(struct entry *tree)
{
	struct entry *left = tree->left;

	if (!left || left->level != tree->level)
		return tree;
	tree->left = left->right;
	left->right = tree;
	return left;
}

static struct entry *split(struct entry *tree)
{
	struct entry *right = tree->right;

	if (!right || !right->right || right->right->level != tree->level)
		return tree;
	tree->right = right->left;
	right->left = tree;
	right->level++;
	return right;
}

static int compare_names(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return (u8)*a - (u8)*b;
}

static struct entry *entry_set(struct entry *tree, const char *name, long value)
{
	int order;

	if (!tree) {
		tree = take(sizeof(*tree));
		tree->name = name;
		tree->value = value;
		tree->level = 1;
		return tree;
	}
	order = compare_names(name, tree->name);
	if (order < 0)
		tree->left = entry_set(tree->left, name, value);
	else if (order > 0)
		tree->right = entry_set(tree->right, name, value);
	else
		tree->value = value;
	return split(skew(tree));
}

static const struct entry *entry_find(const struct entry *tree, const char *name)
{
	while (tree) {
		int order = compare_names(name, tree->name);

		if (!order)
			break;
		tree = order < 0 ? tree->left : tree->right;
	}
	return tree;
}

static int depth_of(const struct entry *tree)
{
	int left, right;

	if (!tree)
		return 0;
	left = depth_of(tree->left);
	right = depth_of(tree->right);
	return 1 + (left > right ? left : right);
}

static size_t count_in_order(const struct entry *tree, const char **last)
{
	size_t count;

	if (!tree)
		return 0;
	count = count_in_order(tree->left, last);
	if (*last && compare_names(*last, tree->name) >= 0)
		return 0;
	*last = tree->name;
	return count + 1 + count_in_order(tree->right, last);
}

enum { PLACES = 9, NO_WAY = 1 << 30 };

struct road {
	const char *from, *to;
	long length;
};

static long shortest(const struct road *roads, size_t count, const char *from, const char *to)
{
	struct entry *numbers = NULL;
	long best[2 * PLACES], places = 0;
	bool done[2 * PLACES] = { false };

	for (size_t i = 0; i < 2 * count; i++) {
		const char *name = i % 2 ? roads[i / 2].from : roads[i / 2].to;

		if (entry_find(numbers, name))
			continue;
		best[places] = equal(name, from) ? 0 : NO_WAY;
		numbers = entry_set(numbers, name, places++);
	}
	for (;;) {
		long nearest = -1;

		for (long place = 0; place < places; place++)
			if (!done[place] && best[place] < NO_WAY && (nearest < 0 || best[place] < best[nearest]))
				nearest = place;
		if (nearest < 0)
			break;
		done[nearest] = true;
		for (size_t i = 0; i < count; i++) {
			long begin = entry_find(numbers, roads[i].from)->value;
			long end = entry_find(numbers, roads[i].to)->value;

			if (begin == nearest && best[begin] + roads[i].length < best[end])
				best[end] = best[begin] + roads[i].length;
		}
	}
	return best[entry_find(numbers, to)->value];
}

static bool check_tree(void)
{
	static const struct road roads[] = {
		{ "grenoble", "lyon", 110 },   { "lyon", "paris", 465 },     { "grenoble", "valence", 95 },
		{ "valence", "lyon", 100 },    { "paris", "rennes", 350 },   { "lyon", "clermont", 165 },
		{ "clermont", "paris", 425 },  { "valence", "nimes", 150 },  { "nimes", "toulouse", 290 },
		{ "toulouse", "rennes", 695 }, { "clermont", "rennes", 560 },
	};
	struct entry *tree = NULL;
	const char *last = NULL;
	enum { ENTRIES = 1000 };

	for (long i = 0; i < ENTRIES; i++) {
		char *name = take(8);
		long rest = i * 7 % ENTRIES;

		for (int digit = 0; digit < 3; digit++, rest /= 10)
			name[2 - digit] = '0' + rest % 10;
		tree = entry_set(tree, name, i);
	}
	CHECK(count_in_order(tree, &last) == ENTRIES);
	CHECK(depth_of(tree) <= 20);
	CHECK(entry_find(tree, "007")->value == 1 && !entry_find(tree, "7"));
	CHECK(shortest(roads, COUNT(roads), "grenoble", "rennes") == 835);
	CHECK(shortest(roads, COUNT(roads), "grenoble", "toulouse") == 535);
	CHECK(shortest(roads, COUNT(roads), "rennes", "grenoble") == NO_WAY);
	return true;
}

