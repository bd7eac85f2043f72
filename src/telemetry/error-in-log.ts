import { boundedText } from '../core/shown-text.ts';

/** Causes below a cause are left out from here on. */
const causesMax = 3;

/**
 * An error as a line of the log has it: each text is bounded, and of what a library has attached only plain values
 * are taken, as the rest may hold whole requests and their bodies.
 */
export function errorInLog(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return boundedText(String(error));
  const { name, message, stack, cause } = error;
  const attached = Object.entries(error).flatMap(([key, value]: [string, unknown]) => {
    if (typeof value === 'string') return [[key, boundedText(value)]];
    return typeof value === 'number' || typeof value === 'boolean' ? [[key, value]] : [];
  });
  return {
    ...(Object.fromEntries(attached) as Record<string, unknown>),
    type: name,
    message: boundedText(message),
    stack: boundedText(stack ?? ''),
    ...(cause !== undefined && depth < causesMax && { cause: errorInLog(cause, depth + 1) }),
  };
}
