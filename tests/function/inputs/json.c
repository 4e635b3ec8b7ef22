/* JSON: read into a tree, looked up by paths, written again. */
enum json_kind { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_TEXT, JSON_LIST, JSON_OBJECT };

struct json {
	enum json_kind kind;
	long number;
	const char *text;
	const char *name;
	struct json *first, *next;
};

struct json_reader {
	const char *at;
	int depth;
};

enum { DEEPEST = 32 };

static struct json *json_value(struct json_reader *reader);

static void json_space(struct json_reader *reader)
{
	while (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\t')
		reader->at++;
}

static bool json_word(struct json_reader *reader, const char *word)
{
	size_t length = length_of(word);

	for (size_t i = 0; i < length; i++)
		if (reader->at[i] != word[i])
			return false;
	reader->at += length;
	return true;
}

static const char *json_text(struct json_reader *reader)
{
	char *text, *out;
	const char *end = reader->at;

	while (*end && *end != '"')
		end += *end == '\\' && end[1] ? 2 : 1;
	if (!*end)
		return NULL;
	text = out = take(end - reader->at + 1);
	while (reader->at < end) {
		char byte = *reader->at++;

		if (byte == '\\') {
			byte = *reader->at++;
			byte = byte == 'n' ? '\n' : byte == 't' ? '\t' : byte;
		}
		*out++ = byte;
	}
	reader->at = end + 1;
	return text;
}

static bool json_members(struct json_reader *reader, struct json *parent, char close)
{
	struct json **last = &parent->first;

	json_space(reader);
	if (*reader->at == close) {
		reader->at++;
		return true;
	}
	for (;;) {
		const char *name = NULL;

		if (parent->kind == JSON_OBJECT) {
			json_space(reader);
			if (!json_word(reader, "\"") || !(name = json_text(reader)))
				return false;
			json_space(reader);
			if (!json_word(reader, ":"))
				return false;
		}
		*last = json_value(reader);
		if (!*last)
			return false;
		(*last)->name = name;
		last = &(*last)->next;
		json_space(reader);
		if (*reader->at == close) {
			reader->at++;
			return true;
		}
		if (!json_word(reader, ","))
			return false;
	}
}

static struct json *json_value(struct json_reader *reader)
{
	struct json *made = take(sizeof(*made));
	bool good = true;

	if (++reader->depth > DEEPEST)
		return NULL;
	json_space(reader);
	if (json_word(reader, "null")) {
		made->kind = JSON_NULL;
	} else if (json_word(reader, "true")) {
		made->kind = JSON_TRUE;
	} else if (json_word(reader, "false")) {
		made->kind = JSON_FALSE;
	} else if (json_word(reader, "\"")) {
		made->kind = JSON_TEXT;
		made->text = json_text(reader);
		good = made->text != NULL;
	} else if (json_word(reader, "[")) {
		made->kind = JSON_LIST;
		good = json_members(reader, made, ']');
	} else if (json_word(reader, "{")) {
		made->kind = JSON_OBJECT;
		good = json_members(reader, made, '}');
	} else {
		bool negative = json_word(reader, "-");

		made->kind = JSON_NUMBER;
		good = *reader->at >= '0' && *reader->at <= '9';
		for (; *reader->at >= '0' && *reader->at <= '9'; reader->at++)
			made->number = made->number * 10 + (*reader->at - '0');
		if (negative)
			made->number = -made->number;
	}
	reader->depth--;
	return good ? made : NULL;
}

static struct json *json_read(const char *text)
{
	struct json_reader reader = { text, 0 };
	struct json *made = json_value(&reader);

	json_space(&reader);
	return *reader.at ? NULL : made;
}

/* A path is of names and of places in lists: "a.2.b". */
static struct json *json_find(struct json *value, const char *path)
{
	while (value && *path) {
		size_t length = 0, place = 0;
		struct json *member = value->first;

		while (path[length] && path[length] != '.') {
			place = place * 10 + (path[length] - '0');
			length++;
		}
		if (value->kind == JSON_LIST) {
			while (member && place--)
				member = member->next;
		} else {
			while (member && (length_of(member->name) != length ||
					  compare_bytes(member->name, path, length)))
				member = member->next;
		}
		value = member;
		path += length + (path[length] == '.');
	}
	return value;
}

static char *json_quote(char *out, const char *text)
{
	*out++ = '"';
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			*out++ = '\\';
		*out++ = *text;
	}
	*out++ = '"';
	return out;
}

static char *json_write(char *out, const struct json *value)
{
	static const char *const words[] = { "null", "false", "true" };
	bool list = value->kind == JSON_LIST;
	char digits[20];
	size_t count = 0;

	switch (value->kind) {
	case JSON_NUMBER:
		if (value->number < 0)
			*out++ = '-';
		for (u64 rest = value->number < 0 ? -value->number : value->number; rest || !count; rest /= 10)
			digits[count++] = '0' + rest % 10;
		while (count)
			*out++ = digits[--count];
		return out;
	case JSON_TEXT:
		return json_quote(out, value->text);
	case JSON_LIST:
	case JSON_OBJECT:
		*out++ = list ? '[' : '{';
		for (const struct json *member = value->first; member; member = member->next) {
			if (!list) {
				out = json_quote(out, member->name);
				*out++ = ':';
			}
			out = json_write(out, member);
			if (member->next)
				*out++ = ',';
		}
		*out++ = list ? ']' : '}';
		return out;
	default:
		memcpy(out, words[value->kind], length_of(words[value->kind]));
		return out + length_of(words[value->kind]);
	}
}

static bool check_json(void)
{
	static const char text[] =
		"{\"vms\":[{\"name\":\"fn-1\",\"ports\":[80,8080]},{\"name\":\"a\\\"b\",\"awake\":true}],\"load\":-5,\"none\":null,\"empty\":{}}";
	static const char *const broken[] = { "", "[1,", "{\"a\" 1}", "tru", "[1 2]", "\"open", "1 1", "{a:1}", "-" };
	struct json *value = json_read(text);
	char *again = take(sizeof(text));

	CHECK(value);
	CHECK(json_find(value, "vms.0.ports.1")->number == 8080);
	CHECK(equal(json_find(value, "vms.1.name")->text, "a\"b"));
	CHECK(json_find(value, "load")->number == -5 && !json_find(value, "vms.2"));
	json_write(again, value);
	CHECK(equal(again, text));
	for (size_t i = 0; i < COUNT(broken); i++)
		CHECK(!json_read(broken[i]));
	return true;
}

