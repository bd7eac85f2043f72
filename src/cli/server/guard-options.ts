import type { Command } from 'commander';

function gather(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

/** Adds the flags that GuardFlags names. */
export function addGuardOptions(command: Command): Command {
  return command
    .option(
      '--anonymous <rights>',
      'what those may do who send no token: read, none or all (default: none; all for a store that never had a token)',
    )
    .option('--tls-cert <file>', 'speak TLS with this certificate (PEM, with its chain); HUP reads it anew')
    .option('--tls-key <file>', 'the key of the certificate')
    .option(
      '--tls-client-ca <file>',
      'take certificates of clients signed by these; CN is the name of a token',
    )
    .option('--file-size-max <size>', 'largest file, before compression (default: 1T)')
    .option('--store-size-max <size>', 'most bytes that all contents may take; 0 is no bound (default: 0)')
    .option('--files-max <number>', 'most names; 0 is no bound (default: 0)')
    .option('--quota <bound>', 'for a prefix, as /p=10G,5000: size, files; can be given again', gather)
    .option('--free-space-min <size>', 'refuse uploads when less is free on the disk (default: 1G or 1%)')
    .option('--uploads-max <number>', 'uploads at once; each worker takes its part of it (default: 1024)')
    .option(
      '--token-uploads-max <n>',
      'of these, of one token or address; 0 is as many as are left for others: half of all for one alone (default: 0)',
    )
    .option('--connections-max <n>', 'connections at once; each worker takes its part of it (default: 10000)')
    .option(
      '--rate-max <number>',
      'requests a second of one token, or address, of all workers together; 0 is no bound (default: 0)',
    )
    .option('--unpack-ratio-max <n>', 'most bytes that one byte of gzip may become (default: 256)')
    .option('--headers-timeout <t>', 'for the headers of a request to arrive (default: 20s)')
    .option('--stall-timeout <time>', 'without a byte of a body or an answer (default: 30s)')
    .option(
      '--body-rate-min <size>',
      'bytes a second that a body or an answer must make, over the stall time-out; 0 is no bound (default: 1K)',
    )
    .option('--idle-timeout <time>', 'between two requests of a connection (default: 75s)');
}
