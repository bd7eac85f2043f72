// What goes wrong on the way to a server, in words for its user.
import { FiletrackerError, isFiletrackerError, messageOf } from '../../core/errors.ts';
import { abortedError } from './retries.ts';

const states: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'no server answers there',
  ENOTFOUND: 'there is no host of this name',
  EAI_AGAIN: 'the name of the host can not be looked up now',
  ECONNRESET: 'the connection was cut',
  EPIPE: 'the connection was cut',
  // A write that was waiting when the connection was cut, since Node 24.
  ECANCELED: 'the connection was cut',
  ETIMEDOUT: 'the host does not answer',
  ERR_STREAM_PREMATURE_CLOSE: 'the connection was cut',
  EHOSTUNREACH: 'the host can not be reached',
  ENETUNREACH: 'the network can not be reached',
};

/** First bytes of a TLS alert (RFC 8446, 5.1), with which a server by TLS answers plain HTTP. */
const tlsAlert = Buffer.from([21, 3]);

/**
 * Translates what Node throws about a connection; what is ours already comes back as it is. `peer` is the server as
 * messages name it.
 */
export function fromConnectionError(
  error: unknown,
  action: string,
  peer: string,
  signal: AbortSignal | undefined,
): unknown {
  if (isFiletrackerError(error)) return error;
  if (signal?.aborted === true) return abortedError(action, error);
  const code = codeOf(error) ?? (error instanceof AggregateError ? codeOf(error.errors[0]) : undefined) ?? '';
  const fail = (ours: 'unreachable' | 'protocol', state: string, retryable: boolean): FiletrackerError =>
    new FiletrackerError(ours, `Cannot ${action} at ${peer}: ${state}`, {
      cause: error,
      retryable,
    });
  if (code.startsWith('HPE_')) {
    const state = answersTls(error)
      ? 'what answers there speaks TLS; use an address that begins with "https://"'
      : 'what answers there does not speak HTTP';
    return fail('protocol', state, false);
  }
  // The code, EPROTO, stands for other faults of TLS too.
  if (messageOf(error).includes('wrong version number')) {
    return fail(
      'protocol',
      'what answers there does not speak TLS; use an address that begins with "http://"',
      false,
    );
  }
  if (code === 'EINVAL') {
    // What connect() answers for a link-local address without a zone of this machine.
    const state =
      'this machine can not use the address; name one of its networks in it, as "http://[fe80::1%eth0]:9999"';
    return fail('unreachable', state, false);
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
