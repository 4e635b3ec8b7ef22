/* Expressions: parsed to a tree, folded, evaluated. */
enum kind { NUMBER, NAME, NEGATE, ADD, SUBTRACT, MULTIPLY, DIVIDE, REMAINDER, POWER };

struct node {
	enum kind kind;
	long value;
	char name;
	struct node *left, *right;
};

struct parser {
	const char *at;
	const char *error;
};

static struct node *parse_sum(struct parser *parser);

static struct node *node(enum kind kind, struct node *left, struct node *right)
{
	struct node *made = take(sizeof(*made));

	made->kind = kind;
	made->left = left;
	made->right = right;
	return made;
}

static char peek(struct parser *parser)
{
	while (*parser->at == ' ')
		parser->at++;
	return *parser->at;
}

static bool accept(struct parser *parser, char byte)
{
	if (peek(parser) != byte)
		return false;
	parser->at++;
	return true;
}

static struct node *parse_primary(struct parser *parser)
{
	struct node *made = node(NUMBER, NULL, NULL);
	char next = peek(parser);

	if (accept(parser, '(')) {
		made = parse_sum(parser);
		if (!accept(parser, ')'))
			parser->error = "no closing bracket";
	} else if (next >= '0' && next <= '9') {
		for (; *parser->at >= '0' && *parser->at <= '9'; parser->at++)
			made->value = made->value * 10 + (*parser->at - '0');
	} else if (next >= 'a' && next <= 'z') {
		made->kind = NAME;
		made->name = *parser->at++;
	} else {
		parser->error = "neither a number nor a name";
	}
	return made;
}

static struct node *parse_power(struct parser *parser)
{
	struct node *base;

	if (accept(parser, '-'))
		return node(NEGATE, parse_power(parser), NULL);
	base = parse_primary(parser);
	return accept(parser, '^') ? node(POWER, base, parse_power(parser)) : base;
}

static struct node *parse_product(struct parser *parser)
{
	struct node *left = parse_power(parser);

	while (!parser->error) {
		if (accept(parser, '*'))
			left = node(MULTIPLY, left, parse_power(parser));
		else if (accept(parser, '/'))
			left = node(DIVIDE, left, parse_power(parser));
		else if (accept(parser, '%'))
			left = node(REMAINDER, left, parse_power(parser));
		else
			break;
	}
	return left;
}

static struct node *parse_sum(struct parser *parser)
{
	struct node *left = parse_product(parser);

	while (!parser->error) {
		if (accept(parser, '+'))
			left = node(ADD, left, parse_product(parser));
		else if (accept(parser, '-'))
			left = node(SUBTRACT, left, parse_product(parser));
		else
			break;
	}
	return left;
}

static bool compute(enum kind kind, long a, long b, long *result)
{
	switch (kind) {
	case NEGATE:
		*result = -a;
		return true;
	case ADD:
		*result = a + b;
		return true;
	case SUBTRACT:
		*result = a - b;
		return true;
	case MULTIPLY:
		*result = a * b;
		return true;
	case DIVIDE:
	case REMAINDER:
		if (!b)
			return false;
		*result = kind == DIVIDE ? a / b : a % b;
		return true;
	case POWER:
		for (*result = 1; b > 0; b--)
			*result *= a;
		return true;
	default:
		return false;
	}
}

static bool evaluate(const struct node *tree, const long *names, long *result)
{
	long left, right = 0;

	switch (tree->kind) {
	case NUMBER:
		*result = tree->value;
		return true;
	case NAME:
		*result = names[tree->name - 'a'];
		return true;
	default:
		return evaluate(tree->left, names, &left) &&
		       (!tree->right || evaluate(tree->right, names, &right)) &&
		       compute(tree->kind, left, right, result);
	}
}

/* What has no name in it becomes a number. */
static struct node *fold(struct node *tree)
{
	if (tree->left)
		tree->left = fold(tree->left);
	if (tree->right)
		tree->right = fold(tree->right);
	if (tree->left && tree->left->kind == NUMBER && (!tree->right || tree->right->kind == NUMBER) &&
	    compute(tree->kind, tree->left->value, tree->right ? tree->right->value : 0, &tree->value)) {
		tree->kind = NUMBER;
		tree->left = tree->right = NULL;
	}
	return tree;
}

static bool check_expression(void)
{
	static const struct {
		const char *text;
		long value;
	} cases[] = {
		{ "1 + 2 * 3", 7 }, { "(1 + 2) * 3", 9 }, { "2 ^ 3 ^ 2", 512 }, { "-2 ^ 2", -4 },
		{ "10 - 4 - 3", 3 }, { "100 / 7 % 5", 4 }, { "a * a - b", 95 }, { "-(a - b) * -1", 5 },
	};
	long names[26] = { 10, 5 }, result;

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct parser parser = { cases[i].text, NULL };
		struct node *tree = parse_sum(&parser);

		CHECK(!parser.error && !peek(&parser));
		CHECK(evaluate(tree, names, &result) && result == cases[i].value);
		CHECK(evaluate(fold(tree), names, &result) && result == cases[i].value);
	}
	struct parser broken = { "1 + (2", NULL };
	parse_sum(&broken);
	CHECK(broken.error);
	struct parser zero = { "1 / (2 - 2)", NULL };
	CHECK(!evaluate(fold(parse_sum(&zero)), names, &result));
	return true;
}

