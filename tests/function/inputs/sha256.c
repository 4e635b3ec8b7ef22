/* SHA-256 and HMAC. Its constants are computed: the first bits of roots of primes, by integers alone. */
struct sha256 {
	u32 state[8];
	u8 block[64];
	u64 length;
};

static u32 sha256_round[64], sha256_start[8];

/* The first 32 bits of the fraction of the root of a prime: the square root, or the cube root. */
static u32 root_fraction(u32 prime, bool cube)
{
	u64 low = 0, high = (u64)1 << 37;

	/* The largest x with x^n <= prime * 2^(32n), in 128-bit steps made of 64-bit halves. */
	while (high - low > 1) {
		u64 middle = (low + high) / 2;
		u64 whole = middle >> 32, part = middle & 0xffffffff;
		/* middle^2 = a * 2^64 + b * 2^32 + c */
		u64 a = whole * whole, b = 2 * whole * part, c = part * part;
		b += c >> 32;
		a += b >> 32;
		u64 fraction = (b & 0xffffffff) << 32 | (c & 0xffffffff);

		if (cube) {
			/* (a + fraction / 2^64) * (whole + part / 2^32), down to 2^-32, which is enough. */
			u64 first = a * part + (fraction >> 32) * whole;
			u64 rest = ((fraction >> 32) * part + (fraction & 0xffffffff) * whole) >> 32;

			a = a * whole + ((first + rest) >> 32);
		}
		if (a < prime)
			low = middle;
		else
			high = middle;
	}
	return (u32)low;
}

static void sha256_tables(void)
{
	size_t found = 0;

	for (u32 number = 2; found < COUNT(sha256_round); number++) {
		bool prime = true;

		for (u32 divisor = 2; divisor * divisor <= number && prime; divisor++)
			prime = number % divisor != 0;
		if (!prime)
			continue;
		if (found < COUNT(sha256_start))
			sha256_start[found] = root_fraction(number, false);
		sha256_round[found++] = root_fraction(number, true);
	}
}

static u32 rotate(u32 value, int by)
{
	return value >> by | value << (32 - by);
}

static void sha256_mix(struct sha256 *sum)
{
	u32 schedule[64], s[8];

	for (int i = 0; i < 16; i++)
		schedule[i] = (u32)sum->block[4 * i] << 24 | sum->block[4 * i + 1] << 16 |
			      sum->block[4 * i + 2] << 8 | sum->block[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		u32 far = schedule[i - 15], near = schedule[i - 2];

		schedule[i] = schedule[i - 16] + schedule[i - 7] +
			      (rotate(far, 7) ^ rotate(far, 18) ^ far >> 3) +
			      (rotate(near, 17) ^ rotate(near, 19) ^ near >> 10);
	}
	memcpy(s, sum->state, sizeof(s));
	for (int i = 0; i < 64; i++) {
		u32 choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
		u32 majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
		u32 first = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + choice +
			    sha256_round[i] + schedule[i];
		u32 second = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + majority;

		memmove(s + 1, s, 7 * sizeof(*s));
		s[4] += first;
		s[0] = first + second;
	}
	for (int i = 0; i < 8; i++)
		sum->state[i] += s[i];
}

static void sha256_begin(struct sha256 *sum)
{
	memcpy(sum->state, sha256_start, sizeof(sum->state));
	sum->length = 0;
}

static void sha256_add(struct sha256 *sum, const void *bytes, size_t count)
{
	const u8 *byte = bytes;

	while (count--) {
		sum->block[sum->length++ % 64] = *byte++;
		if (sum->length % 64 == 0)
			sha256_mix(sum);
	}
}

static void sha256_end(struct sha256 *sum, u8 *digest)
{
	u64 bits = sum->length * 8;
	u8 length[8];

	sha256_add(sum, "\x80", 1);
	while (sum->length % 64 != 56)
		sha256_add(sum, "", 1);
	for (int i = 0; i < 8; i++)
		length[i] = (u8)(bits >> (56 - 8 * i));
	sha256_add(sum, length, sizeof(length));
	for (int i = 0; i < 32; i++)
		digest[i] = (u8)(sum->state[i / 4] >> (24 - i % 4 * 8));
}

static void hmac(const char *key, const char *text, u8 *digest)
{
	struct sha256 sum;
	u8 inner[64], outer[64];

	for (size_t i = 0, length = length_of(key); i < sizeof(inner); i++) {
		u8 byte = i < length ? key[i] : 0;

		inner[i] = byte ^ 0x36;
		outer[i] = byte ^ 0x5c;
	}
	sha256_begin(&sum);
	sha256_add(&sum, inner, sizeof(inner));
	sha256_add(&sum, text, length_of(text));
	sha256_end(&sum, digest);
	sha256_begin(&sum);
	sha256_add(&sum, outer, sizeof(outer));
	sha256_add(&sum, digest, 32);
	sha256_end(&sum, digest);
}

static bool begins_with(const u8 *digest, u32 expected)
{
	return ((u32)digest[0] << 24 | digest[1] << 16 | digest[2] << 8 | digest[3]) == expected;
}

static bool check_sha256(void)
{
	struct sha256 sum;
	u8 digest[32];

	sha256_tables();
	CHECK(sha256_start[0] == 0x6a09e667 && sha256_round[0] == 0x428a2f98 && sha256_round[63] == 0xc67178f2);
	sha256_begin(&sum);
	sha256_end(&sum, digest);
	CHECK(begins_with(digest, 0xe3b0c442));
	sha256_begin(&sum);
	sha256_add(&sum, "abc", 3);
	sha256_end(&sum, digest);
	CHECK(begins_with(digest, 0xba7816bf));
	hmac("key", "The quick brown fox jumps over the lazy dog", digest);
	CHECK(begins_with(digest, 0xf7bc83f4));
	return true;
}

