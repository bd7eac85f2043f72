/**
 * A server of S3 that is there already, for the tests to run against instead of one of their own: the way to try another
 * make. Empty where there is none. Its keys are taken from the AWS_* variables, as everywhere.
 */
export const otherS3Endpoint = process.env['FILETRACKER_TEST_S3_ENDPOINT'] ?? '';

/** As scripts/engines/ceph.sh sets them up. */
const ownCredentials = { accessKeyId: 'filetracker', secretAccessKey: 'filetracker-secret' } as const;

export const s3Credentials =
  otherS3Endpoint === ''
    ? ownCredentials
    : {
        accessKeyId: process.env['AWS_ACCESS_KEY_ID'] ?? ownCredentials.accessKeyId,
        secretAccessKey: process.env['AWS_SECRET_ACCESS_KEY'] ?? ownCredentials.secretAccessKey,
      };

export const testBucket = 'filetracker-tests';
