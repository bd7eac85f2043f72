/** One element of an Accept header (RFC 9110, 12.4): a lower-case token and how much it is wanted, 0 to 1. */
export interface WeightedToken {
  readonly token: string;
  readonly quality: number;
}

const weight = /^(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/;

/** The weight among the parameters of an element. A weight that can't be read counts as 0: not wanted. */
function qualityOf(parameters: readonly string[]): number {
  for (const parameter of parameters) {
    const [key = '', value = ''] = parameter.split('=');
    if (key.trim().toLowerCase() === 'q') return weight.test(value.trim()) ? Number(value) : 0;
  }
  return 1;
}

/** Reads `a;q=0.5, b, *;q=0`. Parameters other than the weight are left out. */
export function parseWeightedList(header: string): WeightedToken[] {
  const elements: WeightedToken[] = [];
  for (const element of header.split(',')) {
    const [token = '', ...parameters] = element.split(';');
    const name = token.trim().toLowerCase();
    if (name !== '') elements.push({ token: name, quality: qualityOf(parameters) });
  }
  return elements;
}

/** Whether Accept names one of the types itself; `*` does not count. For forms that are sent on request only. */
export function namesType(header: string | undefined, types: readonly string[]): boolean {
  if (header === undefined || header === '*/*') return false;
  return parseWeightedList(header).some(({ token, quality }) => quality > 0 && types.includes(token));
}
