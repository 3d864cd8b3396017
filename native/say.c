/* Messages, memory, and output in large pieces. */
#include "helper.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN 400

const char *shown(const char *name, size_t length)
{
	static char rooms[4][SHOWN + 8];
	static unsigned next;
	char *out = rooms[next++ % 4];
	size_t at = 0;

	if (length == 0)
		return "the root";
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)name[i];
		if (at > SHOWN - 4) {
			strcpy(out + at, "...");
			return out;
		}
		if (c == '\\' || c < 0x20 || c >= 0x7f)
			at += (size_t)sprintf(out + at, "\\x%02x", c);
		else
			out[at++] = (char)c;
	}
	out[at] = 0;
	return out;
}

const char *shown_text(const char *name)
{
	return *name ? shown(name, strlen(name)) : "an empty name";
}

static void line(const char *format, va_list values)
{
	char text[4096];
	int length = vsnprintf(text, sizeof text - 1, format, values);

	if (length < 0)
		return;
	if (length > (int)sizeof text - 2)
		length = (int)sizeof text - 2;
	text[length++] = '\n';
	if (write(STDERR_FILENO, text, (size_t)length) < 0)
		return; /* nobody listens */
}

void say(const char *format, ...)
{
	va_list values;
	va_start(values, format);
	line(format, values);
	va_end(values);
}

void fail(const char *format, ...)
{
	va_list values;
	va_start(values, format);
	line(format, values);
	va_end(values);
	_exit(FAILED);
}

void fail_with(enum exit_code code, const char *format, ...)
{
	va_list values;
	va_start(values, format);
	line(format, values);
	va_end(values);
	_exit(code);
}

void *allocate(size_t bytes)
{
	return resize(NULL, bytes);
}

void *resize(void *memory, size_t bytes)
{
	void *more = realloc(memory, bytes ? bytes : 1);
	if (!more)
		fail("there is not enough memory");
	return more;
}

void text_reserve(struct text *text, size_t more)
{
	size_t wanted;
	if (__builtin_add_overflow(text->length, more, &wanted) || wanted > SIZE_MAX / 4)
		fail("there is not enough memory");
	if (wanted + 1 > text->room) {
		text->room = (wanted + 1) * 2;
		text->bytes = resize(text->bytes, text->room);
	}
	text->bytes[text->length] = 0;
}

void text_add(struct text *text, const void *bytes, size_t length)
{
	text_reserve(text, length);
	memcpy(text->bytes + text->length, bytes, length);
	text->length += length;
	text->bytes[text->length] = 0;
}

void text_cut(struct text *text, size_t length)
{
	text_reserve(text, 0);
	text->length = length;
	text->bytes[length] = 0;
}

void output_open(struct output *out, int fd)
{
	*out = (struct output){.fd = fd, .bytes = allocate(OUTPUT_ROOM)};
}

void output_add(struct output *out, const void *bytes, size_t length)
{
	const char *from = bytes;

	out->total += length;
	while (length) {
		size_t step = OUTPUT_ROOM - out->length;
		if (step > length)
			step = length;
		memcpy(out->bytes + out->length, from, step);
		out->length += step;
		from += step;
		length -= step;
		if (out->length == OUTPUT_ROOM)
			output_flush(out);
	}
}

void output_flush(struct output *out)
{
	write_all(out->fd, out->bytes, out->length);
	out->length = 0;
}

void write_all(int fd, const void *bytes, size_t length)
{
	const char *from = bytes;

	while (length) {
		ssize_t done = write(fd, from, length);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			fail("the output cannot be written: %s", strerror(errno));
		from += done;
		length -= (size_t)done;
	}
}
