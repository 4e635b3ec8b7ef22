/* SPDX-License-Identifier: GPL-2.0-only */
/* What a C library would do: the way in and out, output, memory, strings. */
#include <stddef.h>
#include <stdbool.h>

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CHECK(what) do { if (!(what)) { fail(#what, __LINE__); return false; } } while (0)

enum { SYS_WRITE = 1, SYS_EXIT = 60, HEAP = 1 << 20 };

__asm__(".globl _start\n_start:\n\tand $-16, %rsp\n\tcall enter\n");

static long syscall3(long number, long first, long second, long third)
{
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(first), "S"(second), "d"(third)
			 : "rcx", "r11", "memory");
	return result;
}

/* The compiler itself calls these for structures. */
void *memset(void *to, int value, size_t count)
{
	u8 *byte = to;

	while (count--)
		*byte++ = (u8)value;
	return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
	u8 *out = to;
	const u8 *in = from;

	while (count--)
		*out++ = *in++;
	return to;
}

void *memmove(void *to, const void *from, size_t count)
{
	u8 *out = to;
	const u8 *in = from;

	if (out <= in)
		return memcpy(to, from, count);
	while (count--)
		out[count] = in[count];
	return to;
}

static int compare_bytes(const void *first, const void *second, size_t count)
{
	const u8 *a = first, *b = second;

	for (; count--; a++, b++)
		if (*a != *b)
			return *a < *b ? -1 : 1;
	return 0;
}

static void leave(int status)
{
	syscall3(SYS_EXIT, status, 0, 0);
}

static size_t length_of(const char *text)
{
	const char *end = text;

	while (*end)
		end++;
	return end - text;
}

static bool equal(const char *a, const char *b)
{
	return length_of(a) == length_of(b) && !compare_bytes(a, b, length_of(a));
}

static char line[256];
static size_t line_length;

static void put(char byte)
{
	line[line_length++] = byte;
	if (line_length == sizeof(line) || byte == '\n') {
		syscall3(SYS_WRITE, 1, (long)line, line_length);
		line_length = 0;
	}
}

static void put_number(long value)
{
	char digits[20];
	size_t count = 0;
	u64 rest = value < 0 ? -(u64)value : (u64)value;

	if (value < 0)
		put('-');
	do
		digits[count++] = '0' + rest % 10;
	while (rest /= 10);
	while (count)
		put(digits[--count]);
}

static void put_text(const char *text)
{
	while (*text)
		put(*text++);
}

static void fail(const char *what, long where)
{
	put_text("line ");
	put_number(where);
	put_text(": not so: ");
	put_text(what);
	put('\n');
}

/* Memory is never given back one by one: a check gives back all it took. */
static u8 heap[HEAP];
static size_t heap_used;

static void *take(size_t count)
{
	u8 *memory = heap + heap_used;

	count = (count + 15) & ~(size_t)15;
	if (count > HEAP - heap_used) {
		put_text("no memory\n");
		leave(2);
	}
	heap_used += count;
	return memset(memory, 0, count);
}

static u32 random_state = 1;

static u32 random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return random_state;
}

