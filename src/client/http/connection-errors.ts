// Errors of connections, in words for the user.
import { abortedError, type CallOptions } from '../../core/concurrency.ts';
import { cannot, isFiletrackerError, messageOf, type FiletrackerError } from '../../core/errors.ts';

const cut = 'the connection was cut';

/** Failures that another try may not meet. */
const states: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'no server answers there',
  ENOTFOUND: 'there is no host of this name',
  EAI_AGAIN: 'the name of the host cannot be looked up now',
  ECONNRESET: cut,
  EPIPE: cut,
  // A write that was waiting when the connection was cut, since Node 24.
  ECANCELED: cut,
  ETIMEDOUT: 'the host does not answer',
  ERR_STREAM_PREMATURE_CLOSE: cut,
  EHOSTUNREACH: 'the host cannot be reached',
  ENETUNREACH: 'the network cannot be reached',
};

/** First bytes of a TLS alert (RFC 8446, 5.1), with which a TLS server responds to plain HTTP. */
const tlsAlert = Buffer.from([21, 3]);

/**
 * Translates an error of Node about a connection; a FiletrackerError is returned as it is.
 * @param request Its `action` completes "Cannot …".
 * @param peer The server as messages name it.
 */
export function fromConnectionError(
  error: unknown,
  { action, signal }: CallOptions & { readonly action: string },
  peer: string,
): unknown {
  if (isFiletrackerError(error)) return error;
  if (signal?.aborted === true) return abortedError(action, error);
  const code = codeOf(error) ?? (error instanceof AggregateError ? codeOf(error.errors[0]) : undefined) ?? '';
  const fail = (ours: 'unreachable' | 'protocol', state: string, retryable = false): FiletrackerError =>
    cannot(ours, `${action} at ${peer}`, state, { cause: error, retryable });
  if (code.startsWith('HPE_')) {
    return answersTls(error)
      ? fail('protocol', 'the server speaks TLS; use an address that begins with "https://"')
      : fail('protocol', 'the server does not speak HTTP');
  }
  // Not by its code, EPROTO, which stands for other faults of TLS too.
  if (messageOf(error).includes('wrong version number')) {
    return fail('protocol', 'the server does not speak TLS; use an address that begins with "http://"');
  }
  // From connect(), for a link-local address without a zone of this machine.
  if (code === 'EINVAL') {
    const advice = 'name one of its networks in it, as "http://[fe80::1%eth0]:9999"';
    return fail('unreachable', `this machine cannot use the address; ${advice}`);
  }
  const state = states[code];
  return fail('unreachable', state ?? messageOf(error), state !== undefined);
}

function answersTls(error: unknown): boolean {
  if (!(error instanceof Error) || !('rawPacket' in error) || !Buffer.isBuffer(error.rawPacket)) return false;
  return error.rawPacket.subarray(0, tlsAlert.length).equals(tlsAlert);
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
