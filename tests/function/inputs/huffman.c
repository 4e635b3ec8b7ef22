/* Huffman codes: made of counts with a heap, made canonical, so that the lengths alone tell the codes. */
enum { SYMBOLS = 256, LONGEST_CODE = 32 };

struct tree_node {
	u64 weight;
	int left, right;
};

struct code {
	u32 bits;
	int length;
};

struct bit_stream {
	u8 *bytes;
	size_t at;
};

static struct tree_node huffman_nodes[2 * SYMBOLS];
static int huffman_heap[2 * SYMBOLS];
static size_t huffman_count;

static bool lighter(int a, int b)
{
	return huffman_nodes[a].weight < huffman_nodes[b].weight;
}

static void heap_put(int which)
{
	size_t at = huffman_count++;

	for (; at && lighter(which, huffman_heap[(at - 1) / 2]); at = (at - 1) / 2)
		huffman_heap[at] = huffman_heap[(at - 1) / 2];
	huffman_heap[at] = which;
}

static int heap_take(void)
{
	int top = huffman_heap[0], last = huffman_heap[--huffman_count];
	size_t at = 0, child;

	while ((child = 2 * at + 1) < huffman_count) {
		if (child + 1 < huffman_count && lighter(huffman_heap[child + 1], huffman_heap[child]))
			child++;
		if (!lighter(huffman_heap[child], last))
			break;
		huffman_heap[at] = huffman_heap[child];
		at = child;
	}
	huffman_heap[at] = last;
	return top;
}

static void measure(int which, int depth, struct code *codes)
{
	if (which < SYMBOLS) {
		codes[which].length = depth ? depth : 1;
		return;
	}
	measure(huffman_nodes[which].left, depth + 1, codes);
	measure(huffman_nodes[which].right, depth + 1, codes);
}

static void make_canonical(struct code *codes)
{
	u32 next = 0;

	for (int length = 1; length <= LONGEST_CODE; length++, next <<= 1)
		for (int symbol = 0; symbol < SYMBOLS; symbol++)
			if (codes[symbol].length == length)
				codes[symbol].bits = next++;
}

static void make_codes(const u8 *bytes, size_t size, struct code *codes)
{
	int made = SYMBOLS;

	memset(huffman_nodes, 0, sizeof(huffman_nodes));
	memset(codes, 0, SYMBOLS * sizeof(*codes));
	huffman_count = 0;
	for (size_t i = 0; i < size; i++)
		huffman_nodes[bytes[i]].weight++;
	for (int symbol = 0; symbol < SYMBOLS; symbol++)
		if (huffman_nodes[symbol].weight)
			heap_put(symbol);
	while (huffman_count > 1) {
		struct tree_node *joined = &huffman_nodes[made];

		joined->left = heap_take();
		joined->right = heap_take();
		joined->weight = huffman_nodes[joined->left].weight + huffman_nodes[joined->right].weight;
		heap_put(made++);
	}
	measure(heap_take(), 0, codes);
	make_canonical(codes);
}

static void write_bits(struct bit_stream *out, struct code code)
{
	while (code.length--) {
		if (code.bits >> code.length & 1)
			out->bytes[out->at / 8] |= 0x80 >> out->at % 8;
		out->at++;
	}
}

static int read_symbol(struct bit_stream *in, const struct code *codes)
{
	struct code code = { 0, 0 };

	while (code.length < LONGEST_CODE) {
		code.bits = code.bits << 1 | (in->bytes[in->at / 8] >> (7 - in->at % 8) & 1);
		code.length++;
		in->at++;
		for (int symbol = 0; symbol < SYMBOLS; symbol++)
			if (codes[symbol].length == code.length && codes[symbol].bits == code.bits)
				return symbol;
	}
	return -1;
}

static bool check_huffman(void)
{
	enum { SIZE = 2000 };
	struct code *codes = take(SYMBOLS * sizeof(*codes));
	u8 *plain = take(SIZE);
	struct bit_stream out = { take(SIZE * 2), 0 }, in = { out.bytes, 0 };

	for (size_t i = 0; i < SIZE; i++)
		plain[i] = 'a' + random() % (1 + random() % 20);
	make_codes(plain, SIZE, codes);
	CHECK(codes['a'].length < codes['t'].length);
	for (size_t i = 0; i < SIZE; i++)
		write_bits(&out, codes[plain[i]]);
	CHECK(out.at < SIZE * 5);
	for (size_t i = 0; i < SIZE; i++)
		CHECK(read_symbol(&in, codes) == plain[i]);
	CHECK(in.at == out.at);
	return true;
}

