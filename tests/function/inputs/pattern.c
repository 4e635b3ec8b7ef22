/* Regular expressions without going back: compiled to instructions, which are run for all ways through them at once. */
enum opcode { ONE, ANY, CLASS, SPLIT, JUMP, MATCH };
enum { PROGRAM = 128 };

struct instruction {
	enum opcode opcode;
	char low, high;
	int to, other;
};

struct pattern {
	struct instruction code[PROGRAM];
	int count;
	const char *at;
	bool broken;
};

static void pattern_choice(struct pattern *pattern);

static int emit(struct pattern *pattern, enum opcode opcode, int to, int other)
{
	struct instruction made = { opcode, 0, 0, to, other };

	if (pattern->count == PROGRAM) {
		pattern->broken = true;
		return 0;
	}
	pattern->code[pattern->count] = made;
	return pattern->count++;
}

/* Makes room for an instruction before those from `from` on. */
static void insert(struct pattern *pattern, int from, enum opcode opcode, int to, int other)
{
	emit(pattern, MATCH, 0, 0);
	for (int at = pattern->count - 1; at > from; at--) {
		pattern->code[at] = pattern->code[at - 1];
		if (pattern->code[at].opcode == SPLIT || pattern->code[at].opcode == JUMP) {
			pattern->code[at].to += pattern->code[at].to >= from;
			pattern->code[at].other += pattern->code[at].other >= from;
		}
	}
	struct instruction made = { opcode, 0, 0, to, other };
	pattern->code[from] = made;
}

static void pattern_atom(struct pattern *pattern)
{
	char byte = *pattern->at++;
	int made;

	switch (byte) {
	case '(':
		pattern_choice(pattern);
		if (*pattern->at++ != ')') {
			pattern->broken = true;
			pattern->at--;
		}
		return;
	case '.':
		emit(pattern, ANY, 0, 0);
		return;
	case '[':
		made = emit(pattern, CLASS, 0, 0);
		pattern->code[made].low = *pattern->at;
		if (!*pattern->at || pattern->at[1] != '-' || !pattern->at[2] || pattern->at[3] != ']') {
			pattern->broken = true;
			return;
		}
		pattern->code[made].high = pattern->at[2];
		pattern->at += 4;
		return;
	case '*':
	case '+':
	case '?':
		pattern->broken = true;
		return;
	default:
		made = emit(pattern, ONE, 0, 0);
		pattern->code[made].low = byte;
	}
}

static void pattern_repeat(struct pattern *pattern)
{
	int begin = pattern->count;

	pattern_atom(pattern);
	switch (*pattern->at) {
	case '*':
		insert(pattern, begin, SPLIT, begin + 1, pattern->count + 2);
		emit(pattern, JUMP, begin, 0);
		break;
	case '+':
		emit(pattern, SPLIT, begin, pattern->count + 1);
		break;
	case '?':
		insert(pattern, begin, SPLIT, begin + 1, pattern->count + 1);
		break;
	default:
		return;
	}
	pattern->at++;
}

static void pattern_choice(struct pattern *pattern)
{
	int begin = pattern->count, jump;

	while (*pattern->at && *pattern->at != '|' && *pattern->at != ')' && !pattern->broken)
		pattern_repeat(pattern);
	if (*pattern->at != '|' || pattern->broken)
		return;
	pattern->at++;
	insert(pattern, begin, SPLIT, begin + 1, pattern->count + 2);
	jump = emit(pattern, JUMP, 0, 0);
	pattern_choice(pattern);
	pattern->code[jump].to = pattern->count;
}

static void follow(const struct pattern *pattern, bool *states, int at)
{
	const struct instruction *code = &pattern->code[at];

	if (states[at])
		return;
	states[at] = true;
	if (code->opcode == SPLIT || code->opcode == JUMP)
		follow(pattern, states, code->to);
	if (code->opcode == SPLIT)
		follow(pattern, states, code->other);
}

static bool matches(const struct pattern *pattern, const char *text)
{
	bool now[PROGRAM] = { false }, next[PROGRAM];

	follow(pattern, now, 0);
	for (; *text; text++) {
		memset(next, 0, sizeof(next));
		for (int at = 0; at < pattern->count; at++) {
			const struct instruction *code = &pattern->code[at];

			if (now[at] && (code->opcode == ANY || (code->opcode == ONE && code->low == *text) ||
					(code->opcode == CLASS && code->low <= *text && *text <= code->high)))
				follow(pattern, next, at + 1);
		}
		memcpy(now, next, sizeof(now));
	}
	return now[pattern->count - 1];
}

static bool pattern_compile(struct pattern *pattern, const char *text)
{
	memset(pattern, 0, sizeof(*pattern));
	pattern->at = text;
	pattern_choice(pattern);
	emit(pattern, MATCH, 0, 0);
	return !*pattern->at && !pattern->broken;
}

static bool check_pattern(void)
{
	static const struct {
		const char *pattern, *text;
		bool match;
	} cases[] = {
		{ "abc", "abc", true },		   { "abc", "abcd", false },	 { "a*b", "aaab", true },
		{ "a*b", "b", true },		   { "a+b", "b", false },	 { "a?b", "ab", true },
		{ "a?b", "aab", false },	   { "(ab)*", "ababab", true },	 { "(ab)+c", "abac", false },
		{ "x(a|b|cd)*y", "xabcdby", true }, { "x(a|b)*y", "xacy", false }, { "[0-9]+", "20210", true },
		{ "[a-f]*", "abg", false },	   { ".*end", "the end", true }, { "(a|b|c)?(x|y)", "cy", true },
		{ "(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false },
	};
	static const char *const broken[] = { "(a", "a)", "*a", "[a", "[a-", "a**" };
	struct pattern *pattern = take(sizeof(*pattern));

	for (size_t i = 0; i < COUNT(cases); i++) {
		CHECK(pattern_compile(pattern, cases[i].pattern));
		CHECK(matches(pattern, cases[i].text) == cases[i].match);
	}
	for (size_t i = 0; i < COUNT(broken); i++)
		CHECK(!pattern_compile(pattern, broken[i]));
	return true;
}

