/* An LZ77 codec. A token is a count of literals and a length, each in 4 bits and more bytes if it is large, then the literals,
 * then the distance in 2 bytes. */
enum { HASH_BITS = 10, LEAST_MATCH = 4, NIBBLE = 15, FARTHEST = 65535 };

struct stream {
	u8 *bytes;
	size_t at, size;
	bool broken;
};

static void write_byte(struct stream *out, u8 byte)
{
	if (out->at < out->size)
		out->bytes[out->at++] = byte;
	else
		out->broken = true;
}

static u8 read_byte(struct stream *in)
{
	if (in->at < in->size)
		return in->bytes[in->at++];
	in->broken = true;
	return 0;
}

static void write_rest(struct stream *out, size_t count)
{
	if (count < NIBBLE)
		return;
	for (count -= NIBBLE; count >= 255; count -= 255)
		write_byte(out, 255);
	write_byte(out, (u8)count);
}

static size_t read_rest(struct stream *in, size_t nibble)
{
	u8 more = 255;

	if (nibble == NIBBLE)
		for (; more == 255 && !in->broken; nibble += more)
			more = read_byte(in);
	return nibble;
}

static u32 hash_of(const u8 *at)
{
	u32 word = at[0] | at[1] << 8 | at[2] << 16 | (u32)at[3] << 24;

	return word * 2654435761u >> (32 - HASH_BITS);
}

static void write_token(struct stream *out, const u8 *literals, size_t count, size_t match, size_t distance)
{
	size_t extra = match ? match - LEAST_MATCH : 0;

	write_byte(out, (u8)((count < NIBBLE ? count : NIBBLE) << 4 | (extra < NIBBLE ? extra : NIBBLE)));
	write_rest(out, count);
	for (size_t i = 0; i < count; i++)
		write_byte(out, literals[i]);
	if (match) {
		write_byte(out, (u8)distance);
		write_byte(out, (u8)(distance >> 8));
		write_rest(out, extra);
	}
}

static void compress(struct stream *out, const u8 *bytes, size_t size)
{
	static u32 last[1 << HASH_BITS];
	size_t begin = 0, at = 0;

	memset(last, 0, sizeof(last));
	while (at + LEAST_MATCH <= size) {
		u32 *slot = &last[hash_of(bytes + at)];
		size_t candidate = *slot, match = 0;

		/* 0 is no place, so that places count from 1. */
		*slot = (u32)at + 1;
		if (candidate-- && at - candidate <= FARTHEST)
			while (at + match < size && bytes[candidate + match] == bytes[at + match])
				match++;
		if (match < LEAST_MATCH) {
			at++;
			continue;
		}
		write_token(out, bytes + begin, at - begin, match, at - candidate);
		at += match;
		begin = at;
	}
	write_token(out, bytes + begin, size - begin, 0, 0);
}

static void expand(struct stream *out, struct stream *in)
{
	while (!in->broken && !out->broken) {
		u8 token = read_byte(in);
		size_t count = read_rest(in, token >> 4), distance, match;

		while (count-- && !in->broken)
			write_byte(out, read_byte(in));
		if (in->at == in->size)
			return;
		distance = read_byte(in);
		distance |= (size_t)read_byte(in) << 8;
		match = read_rest(in, token & NIBBLE) + LEAST_MATCH;
		if (!distance || distance > out->at) {
			in->broken = true;
			return;
		}
		while (match--)
			write_byte(out, out->bytes[out->at - distance]);
	}
}

static bool check_lz(void)
{
	enum { SIZE = 20000 };
	u8 *plain = take(SIZE), *again = take(SIZE), *packed = take(SIZE * 2);

	/* The more values there are, the worse it can be packed. */
	for (u32 values = 1; values <= 256; values *= 4) {
		struct stream out = { packed, 0, SIZE * 2, false }, back = { again, 0, SIZE, false };

		for (size_t i = 0; i < SIZE; i++)
			plain[i] = i % 100 < 60 && i > 100 ? plain[i - 100] : random() % values;
		compress(&out, plain, SIZE);
		CHECK(!out.broken && out.at < SIZE * 3 / 4);
		struct stream in = { packed, 0, out.at, false };
		expand(&back, &in);
		CHECK(!in.broken && !back.broken && back.at == SIZE);
		CHECK(!compare_bytes(plain, again, SIZE));
		struct stream half = { packed, 0, out.at / 2, false };
		back.at = 0;
		expand(&back, &half);
		CHECK(back.at < SIZE);
	}
	return true;
}

