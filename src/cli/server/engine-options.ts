import type { Command } from 'commander';

/** Adds the flags that EngineFlags names. */
export function addEngineOptions(command: Command): Command {
  command
    .option(
      '--catalog <url>',
      'keep the catalog in PostgreSQL, postgres://…[?schema=NAME] (default: $FILETRACKER_CATALOG, else the folder)',
    )
    .option(
      '--blobs <url>',
      'keep large contents in S3, s3://bucket/prefix (default: $FILETRACKER_BLOBS, else the folder)',
    )
    .option('--redirect-downloads', 'send readers of large files to S3 with a signed address (307)');
  return addEngineTuningOptions(command);
}

/** Adds those of them that say how engines are reached, not which. */
export function addEngineTuningOptions(command: Command): Command {
  return command
    .option('--catalog-pool <number>', 'connections to PostgreSQL of each worker (default: 20)')
    .option('--catalog-list-pool <number>', 'the same for lists, which take one for each page (default: 5)')
    .option('--catalog-timeout <time>', 'longest wait for PostgreSQL (default: 10s)')
    .option('--s3-endpoint <url>', 'address of an S3 server that is not Amazon’s')
    .option('--s3-public-endpoint <url>', 'its address in --redirect-downloads (default: --s3-endpoint)')
    .option('--s3-region <region>', 'region of the bucket (default: $AWS_REGION, else us-east-1)')
    .option(
      '--s3-timeout <time>',
      'longest wait for S3; parts of uploads take four times that (default: 15s)',
    )
    .option('--s3-connections <number>', 'connections to S3 of each worker (default: 128)')
    .option(
      '--s3-addressing <form>',
      'path or virtual-host: where requests to --s3-endpoint name the bucket (default: path)',
    )
    .option('--s3-checksums <when>', 'when-required or when-supported (default: when-required)');
}
