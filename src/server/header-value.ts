/** A header as one text; Node's types allow for a list where a header came more than once. */
export function singleValue(value: string | readonly string[] | undefined): string | undefined {
  return value === undefined || typeof value === 'string' ? value : value.join(', ');
}
