/* Numbers of any length up to 2048 bits, in digits of 32: enough to compute modulo a prime of 521 bits. */
enum { DIGITS = 64 };

struct big {
	u32 digit[DIGITS];
};

static struct big big_of(u64 value)
{
	struct big made = { { (u32)value, (u32)(value >> 32) } };

	return made;
}

static int big_compare(const struct big *a, const struct big *b)
{
	for (int i = DIGITS; i--;)
		if (a->digit[i] != b->digit[i])
			return a->digit[i] < b->digit[i] ? -1 : 1;
	return 0;
}

static void big_add(struct big *to, const struct big *other)
{
	u64 carry = 0;

	for (int i = 0; i < DIGITS; i++) {
		carry += (u64)to->digit[i] + other->digit[i];
		to->digit[i] = (u32)carry;
		carry >>= 32;
	}
}

static void big_subtract(struct big *from, const struct big *other)
{
	u64 borrow = 0;

	for (int i = 0; i < DIGITS; i++) {
		u64 difference = (u64)from->digit[i] - other->digit[i] - borrow;

		from->digit[i] = (u32)difference;
		borrow = difference >> 63;
	}
}

static struct big big_multiply(const struct big *a, const struct big *b)
{
	struct big made = { { 0 } };

	for (int i = 0; i < DIGITS; i++) {
		u64 carry = 0;

		for (int j = 0; a->digit[i] && i + j < DIGITS; j++) {
			carry += (u64)a->digit[i] * b->digit[j] + made.digit[i + j];
			made.digit[i + j] = (u32)carry;
			carry >>= 32;
		}
	}
	return made;
}

static u32 big_divide_small(struct big *value, u32 by)
{
	u64 rest = 0;

	for (int i = DIGITS; i--;) {
		rest = rest << 32 | value->digit[i];
		value->digit[i] = (u32)(rest / by);
		rest %= by;
	}
	return (u32)rest;
}

static void big_shift(struct big *value, int bits)
{
	struct big made = { { 0 } };

	for (int i = bits / 32; i < DIGITS; i++) {
		u64 pair = (u64)value->digit[i - bits / 32] << 32;

		if (i > bits / 32)
			pair |= value->digit[i - bits / 32 - 1];
		made.digit[i] = (u32)(pair << bits % 32 >> 32);
	}
	*value = made;
}

/* Modulo 2^bits - 1: what is above `bits` is added to what is below. */
static void big_reduce(struct big *value, const struct big *prime, int bits)
{
	struct big high;

	for (;;) {
		memset(&high, 0, sizeof(high));
		for (int i = bits; i < 32 * DIGITS; i++) {
			if (value->digit[i / 32] >> i % 32 & 1)
				high.digit[(i - bits) / 32] |= 1u << (i - bits) % 32;
		}
		for (int i = bits; i < 32 * DIGITS; i++)
			value->digit[i / 32] &= ~(1u << i % 32);
		struct big zero = { { 0 } };
		if (!big_compare(&high, &zero))
			break;
		big_add(value, &high);
	}
	if (big_compare(value, prime) >= 0)
		big_subtract(value, prime);
}

static const char *big_text(struct big value, char *buffer, size_t size)
{
	struct big zero = { { 0 } };

	buffer[--size] = '\0';
	do
		buffer[--size] = '0' + big_divide_small(&value, 10);
	while (size && big_compare(&value, &zero));
	return buffer + size;
}

static bool check_bignum(void)
{
	static char buffer[32 * DIGITS];
	struct big one = big_of(1), factorial = one, a = one, b = one, prime = one, power;

	for (u64 i = 2; i <= 30; i++) {
		struct big factor = big_of(i);

		factorial = big_multiply(&factorial, &factor);
	}
	CHECK(equal(big_text(factorial, buffer, sizeof(buffer)), "265252859812191058636308480000000"));
	for (int i = 2; i < 100; i++) {
		struct big next = a;

		big_add(&next, &b);
		a = b;
		b = next;
	}
	CHECK(equal(big_text(b, buffer, sizeof(buffer)), "354224848179261915075"));
	/* Fermat: 3^(p - 1) = 1 modulo the prime 2^521 - 1; and so 3^p = 3. */
	big_shift(&prime, 521);
	big_subtract(&prime, &one);
	power = big_of(3);
	for (int i = 1; i < 521; i++) {
		struct big three = big_of(3);

		power = big_multiply(&power, &power);
		big_reduce(&power, &prime, 521);
		power = big_multiply(&power, &three);
		big_reduce(&power, &prime, 521);
	}
	CHECK(!big_compare(&power, &(struct big){ { 3 } }));
	return true;
}

