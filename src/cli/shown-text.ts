/** What a terminal takes for a command, and what ends a line somewhere. */
const controls = /[\p{Cc}\u2028\u2029]/gu;
const shortEscapes: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** A text that may hold names from a disk, as one line; control characters are written as JSON writes them. */
export function asShown(text: string): string {
  return text.replace(
    controls,
    (control) => shortEscapes[control] ?? `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
