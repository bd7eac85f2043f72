type Environment = Readonly<Record<string, string | undefined>>;

/** Whether a terminal supports more than plain text: redrawn lines and colors. */
export function isSmartTerminal(
  { isTTY }: { readonly isTTY?: boolean },
  environment: Environment = process.env,
): boolean {
  return isTTY === true && environment['TERM'] !== 'dumb';
}

/** Whether text on a terminal may have colors. Source: https://no-color.org. */
export function mayColor(
  output: { readonly isTTY?: boolean },
  environment: Environment = process.env,
): boolean {
  return isSmartTerminal(output, environment) && (environment['NO_COLOR'] ?? '') === '';
}
