/** One element of an Accept header (RFC 9110, 12.4): a lower-case token and its weight, 0 to 1. */
export interface WeightedToken {
  readonly token: string;
  readonly quality: number;
}

const weight = /^(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/;

/** The weight among the parameters of an element. A malformed weight counts as 0. */
function qualityOf(parameters: readonly string[]): number {
  for (const parameter of parameters) {
    const [key = '', value = ''] = parameter.split('=');
    if (key.trim().toLowerCase() === 'q') return weight.test(value.trim()) ? Number(value) : 0;
  }
  return 1;
}

/** Reads `a;q=0.5, b, *;q=0`. Other parameters are ignored. */
export function parseWeightedList(header: string): WeightedToken[] {
  const elements: WeightedToken[] = [];
  for (const element of header.split(',')) {
    const [token = '', ...parameters] = element.split(';');
    const name = token.trim().toLowerCase();
    if (name !== '') elements.push({ token: name, quality: qualityOf(parameters) });
  }
  return elements;
}

/** Whether a type is listed by its own name, not by `*`; for forms that are sent only on request. */
export function namesType(header: string | undefined, types: readonly string[]): boolean {
  if (header === undefined || header === '*/*') return false;
  return parseWeightedList(header).some(({ token, quality }) => quality > 0 && types.includes(token));
}
