/*
 * A FIDO key in software, for tests only: a security key provider for ssh-keygen (OpenSSH's sk-api.h, version 10).
 * The key handle is the private key itself, in DER. Built by the tests with gcc against the libcrypto that ssh-keygen
 * itself uses; the few functions are declared here so that no header package is needed.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct evp_pkey_st EVP_PKEY;
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_md_st EVP_MD;
EVP_PKEY *EVP_PKEY_Q_keygen(void *libctx, const char *properties, const char *type, ...);
int EVP_PKEY_get_raw_public_key(const EVP_PKEY *key, unsigned char *out, size_t *len);
size_t EVP_PKEY_get1_encoded_public_key(EVP_PKEY *key, unsigned char **out);
int i2d_PrivateKey(const EVP_PKEY *key, unsigned char **out);
EVP_PKEY *d2i_AutoPrivateKey(EVP_PKEY **key, const unsigned char **in, long len);
EVP_MD_CTX *EVP_MD_CTX_new(void);
const EVP_MD *EVP_sha256(void);
int EVP_DigestSignInit(EVP_MD_CTX *ctx, void *pctx, const EVP_MD *md, void *engine, EVP_PKEY *key);
int EVP_DigestSign(EVP_MD_CTX *ctx, unsigned char *out, size_t *len, const unsigned char *data, size_t data_len);
unsigned char *SHA256(const unsigned char *data, size_t len, unsigned char *out);

enum { ECDSA = 0, ED25519 = 1, FAILED = -1 };

struct sk_option;
struct sk_resident_key;
struct sk_enroll_response {
    uint8_t flags;
    uint8_t *public_key;
    size_t public_key_len;
    uint8_t *key_handle;
    size_t key_handle_len;
    uint8_t *signature;
    size_t signature_len;
    uint8_t *attestation_cert;
    size_t attestation_cert_len;
    uint8_t *authdata;
    size_t authdata_len;
};
struct sk_sign_response {
    uint8_t flags;
    uint32_t counter;
    uint8_t *sig_r;
    size_t sig_r_len;
    uint8_t *sig_s;
    size_t sig_s_len;
};

uint32_t sk_api_version(void) { return 0x000a0000; }

int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application, uint8_t flags,
              const char *pin, struct sk_option **options, struct sk_enroll_response **out) {
    struct sk_enroll_response *response = calloc(1, sizeof *response);
    EVP_PKEY *key = alg == ED25519 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519") : EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    if (response == NULL || key == NULL)
        return FAILED;
    if (alg == ED25519) {
        response->public_key_len = 32;
        response->public_key = malloc(32);
        if (EVP_PKEY_get_raw_public_key(key, response->public_key, &response->public_key_len) != 1)
            return FAILED;
    } else {
        response->public_key_len = EVP_PKEY_get1_encoded_public_key(key, &response->public_key);
    }
    response->key_handle_len = (size_t)i2d_PrivateKey(key, &response->key_handle);
    /* ssh-keygen wants an attestation signature to be there, and does not look at it. */
    response->signature_len = 1;
    response->signature = calloc(1, 1);
    response->flags = flags;
    *out = response;
    return 0;
}

/* One INTEGER of a DER signature, without the zero that keeps it positive. */
static const uint8_t *integer(const uint8_t *der, uint8_t **value, size_t *len) {
    size_t skip = der[2] == 0 ? 1 : 0;
    *len = der[1] - skip;
    *value = malloc(*len);
    memcpy(*value, der + 2 + skip, *len);
    return der + 2 + der[1];
}

int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application, const uint8_t *handle,
            size_t handle_len, uint8_t flags, const char *pin, struct sk_option **options, struct sk_sign_response **out) {
    uint8_t message[69], signature[128];
    size_t len = sizeof signature;
    struct sk_sign_response *response = calloc(1, sizeof *response);
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &handle, (long)handle_len);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (response == NULL || key == NULL || ctx == NULL)
        return FAILED;
    response->flags = flags & 1;
    response->counter = 7;
    SHA256((const uint8_t *)application, strlen(application), message);
    message[32] = response->flags;
    memcpy(message + 33, "\0\0\0\7", 4);
    SHA256(data, data_len, message + 37);
    if (EVP_DigestSignInit(ctx, NULL, alg == ED25519 ? NULL : EVP_sha256(), NULL, key) != 1 ||
        EVP_DigestSign(ctx, signature, &len, message, sizeof message) != 1)
        return FAILED;
    if (alg == ED25519) {
        response->sig_r_len = len;
        response->sig_r = malloc(len);
        memcpy(response->sig_r, signature, len);
    } else {
        integer(integer(signature + 2, &response->sig_r, &response->sig_r_len), &response->sig_s, &response->sig_s_len);
    }
    *out = response;
    return 0;
}

int sk_load_resident_keys(const char *pin, struct sk_option **options, struct sk_resident_key ***keys, size_t *count) {
    return FAILED;
}
