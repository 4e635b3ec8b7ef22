/* Sorting: quicksort with insertion sort for short runs, and heapsort to compare with. */
enum { SHORT_RUN = 12 };

typedef bool (*less_than)(long a, long b);

static bool smaller(long a, long b)
{
	return a < b;
}

static bool larger(long a, long b)
{
	return a > b;
}

static void swap(long *a, long *b)
{
	long kept = *a;

	*a = *b;
	*b = kept;
}

static void insertion_sort(long *values, size_t count, less_than less)
{
	for (size_t i = 1; i < count; i++)
		for (size_t at = i; at && less(values[at], values[at - 1]); at--)
			swap(&values[at], &values[at - 1]);
}

static void quick_sort(long *values, size_t count, less_than less)
{
	while (count > SHORT_RUN) {
		long pivot = values[count / 2];
		long low = -1, high = (long)count;

		for (;;) {
			while (less(values[++low], pivot))
				;
			while (less(pivot, values[--high]))
				;
			if (low >= high)
				break;
			swap(&values[low], &values[high]);
		}
		quick_sort(values, high + 1, less);
		values += high + 1;
		count -= high + 1;
	}
	insertion_sort(values, count, less);
}

static void sift_down(long *values, size_t at, size_t count, less_than less)
{
	for (size_t child; (child = 2 * at + 1) < count; at = child) {
		if (child + 1 < count && less(values[child], values[child + 1]))
			child++;
		if (!less(values[at], values[child]))
			return;
		swap(&values[at], &values[child]);
	}
}

static void heap_sort(long *values, size_t count, less_than less)
{
	for (size_t at = count / 2; at--;)
		sift_down(values, at, count, less);
	for (size_t end = count; end-- > 1;) {
		swap(&values[0], &values[end]);
		sift_down(values, 0, end, less);
	}
}

static bool check_sort(void)
{
	static long first[1000], second[1000];
	static const less_than orders[] = { smaller, larger };

	for (size_t order = 0; order < COUNT(orders); order++) {
		for (size_t i = 0; i < COUNT(first); i++)
			first[i] = second[i] = random() % 500;
		quick_sort(first, COUNT(first), orders[order]);
		heap_sort(second, COUNT(second), orders[order]);
		CHECK(!compare_bytes(first, second, sizeof(first)));
		for (size_t i = 1; i < COUNT(first); i++)
			CHECK(!orders[order](first[i], first[i - 1]));
	}
	return true;
}

