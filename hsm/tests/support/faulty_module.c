/* A PKCS#11 module for tests: SoftHSM, with faults that a test switches on by files in the folder that the
 * environment variable CASEMATE_FAULTS names. Only what the tests need of PKCS#11 v2.40 is declared. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

typedef unsigned long ulong;
typedef ulong rv;
typedef rv (*function)();

enum {
    GetSlotList = 4, GetTokenInfo = 6, OpenSession = 12, CloseAllSessions = 14, GetSessionInfo = 15, Login = 18,
    Logout = 19, CreateObject = 20, CopyObject = 21, DestroyObject = 22, GetAttributeValue = 24, FindObjectsInit = 26,
    EncryptInit = 29, DecryptInit = 33, SignInit = 42, Sign = 43, GenerateKey = 58, GenerateKeyPair = 59,
    FUNCTIONS = 68
};
enum {
    CKR_ATTRIBUTE_TYPE_INVALID = 0x12, CKR_ATTRIBUTE_VALUE_INVALID = 0x13, CKR_ACTION_PROHIBITED = 0x1B,
    CKR_DEVICE_REMOVED = 0x32, CKR_MECHANISM_PARAM_INVALID = 0x71, CKR_SESSION_HANDLE_INVALID = 0xB3,
    CKR_FUNCTION_NOT_SUPPORTED = 0x54, CKR_TOKEN_NOT_PRESENT = 0xE0, CKO_DATA = 0, CKO_PRIVATE_KEY = 3, CKA_CLASS = 0,
    CKA_TOKEN = 1, CKA_VALUE = 0x11,
    CKA_ID = 0x102, CKM_AES_GCM = 0x1087, CKF_FINAL_TRY = 0x20000, CKF_LOCKED = 0x40000
};
static const ulong CKA_ALLOWED_MECHANISMS = 0x40000600UL;

struct list { unsigned char version[2]; function call[FUNCTIONS]; };
struct mechanism { ulong type; void *parameter; ulong length; };
struct gcm { unsigned char *iv; ulong iv_length, iv_bits; unsigned char *aad; ulong aad_length, tag_bits; };
struct attribute { ulong type; void *value; ulong length; };
struct token_info { char names[96]; ulong flags; };
struct session_info { ulong slot, state, flags, error; };

static struct list *real;
static struct list faulty;

static int on(const char *fault, char *path) {
    const char *folder = getenv("CASEMATE_FAULTS");
    snprintf(path, 4096, "%s/%s", folder ? folder : "/nonexistent", fault);
    return access(path, F_OK) == 0;
}

static int is_on(const char *fault) {
    char path[4096];
    return on(fault, path);
}

static int once(const char *fault) {
    char path[4096];
    return on(fault, path) && unlink(path) == 0;
}

/* What may befall a session before any operation in it. */
static rv before(ulong session) {
    struct session_info info;
    if (is_on("slow")) usleep(300000);
    while (is_on("hang")) usleep(5000);
    if (once("close-all-sessions") && real->call[GetSessionInfo](session, &info) == 0)
        real->call[CloseAllSessions](info.slot);
    if (once("logout")) real->call[Logout](session);
    return is_on("device-removed") ? CKR_DEVICE_REMOVED : 0;
}

static rv get_slot_list(unsigned char present, ulong *slots, ulong *count) {
    if (is_on("device-removed")) { *count = 0; return 0; }
    return real->call[GetSlotList](present, slots, count);
}

static rv get_token_info(ulong slot, struct token_info *info) {
    if (is_on("device-removed")) return CKR_TOKEN_NOT_PRESENT;
    rv result = real->call[GetTokenInfo](slot, info);
    if (is_on("pin-final-try")) info->flags |= CKF_FINAL_TRY;
    if (is_on("pin-locked")) info->flags |= CKF_LOCKED;
    return result;
}

static rv open_session(ulong slot, ulong flags, void *application, void *notify, ulong *session) {
    if (is_on("device-removed")) return CKR_DEVICE_REMOVED;
    return real->call[OpenSession](slot, flags, application, notify, session);
}

static rv get_session_info(ulong session, void *info) {
    if (is_on("device-removed")) return CKR_DEVICE_REMOVED;
    return real->call[GetSessionInfo](session, info);
}

static rv login(ulong session, ulong user, char *pin, ulong length) {
    char path[4096];
    on("logins", path);
    FILE *count = fopen(path, "a");
    if (count) { fputc('.', count); fclose(count); }
    return real->call[Login](session, user, pin, length);
}

/* The object that said of itself last that it is a key. */
static ulong seen_as_key;

static rv get_attribute_value(ulong session, ulong object, struct attribute *attributes, ulong count) {
    rv result = real->call[GetAttributeValue](session, object, attributes, count);
    if (!result && count == 1 && attributes->value) {
        if (attributes->type == CKA_CLASS) {
            seen_as_key = once("class-changes") ? object : 0;
            if (seen_as_key) *(ulong *)attributes->value = CKO_PRIVATE_KEY;
        }
        if (attributes->type == CKA_ID && once("id-changes")) *(char *)attributes->value ^= 1;
    }
    if (!is_on("no-allowed-mechanisms")) return result;
    for (ulong i = 0; i < count; i++) {
        if (attributes[i].type != CKA_ALLOWED_MECHANISMS) continue;
        attributes[i].length = (ulong)-1;
        result = CKR_ATTRIBUTE_TYPE_INVALID;
    }
    return result;
}

static int unknown_attribute(struct attribute *attributes, ulong count) {
    for (ulong i = 0; i < count; i++)
        if (attributes[i].type == CKA_ALLOWED_MECHANISMS && is_on("no-allowed-mechanisms")) return 1;
    return 0;
}

static rv generate_key(ulong session, void *mechanism, struct attribute *attributes, ulong count, ulong *key) {
    if (unknown_attribute(attributes, count)) return CKR_ATTRIBUTE_TYPE_INVALID;
    return real->call[GenerateKey](session, mechanism, attributes, count, key);
}

static rv generate_key_pair(ulong session, void *mechanism, struct attribute *public, ulong public_count,
                            struct attribute *private, ulong private_count, ulong *keys, ulong *more) {
    if (unknown_attribute(private, private_count)) return CKR_ATTRIBUTE_TYPE_INVALID;
    if (is_on("no-key-pairs")) return CKR_DEVICE_REMOVED;
    return real->call[GenerateKeyPair](session, mechanism, public, public_count, private, private_count, keys, more);
}

static struct attribute *find(struct attribute *attributes, ulong count, ulong type) {
    for (ulong i = 0; i < count; i++)
        if (attributes[i].type == type) return &attributes[i];
    return NULL;
}

/* Only the search for data objects: keys are looked for in every session that is opened. */
static rv find_objects_init(ulong session, struct attribute *attributes, ulong count) {
    struct attribute *class = find(attributes, count, CKA_CLASS);
    int data = class && *(ulong *)class->value == CKO_DATA;
    while (data && is_on("hang-data")) usleep(5000);
    rv result = data ? before(session) : 0;
    return result ? result : real->call[FindObjectsInit](session, attributes, count);
}

static void lose(ulong session) {
    struct session_info info;
    if (real->call[GetSessionInfo](session, &info) == 0) real->call[CloseAllSessions](info.slot);
}

/* What goes wrong around the call that puts an object on the token, whichever that is. */
static rv before_placing(ulong session) {
    if (is_on("create-fails")) return CKR_DEVICE_REMOVED;
    if (once("lost-before-create")) lose(session);
    return 0;
}

static rv after_placing(ulong session, rv result) {
    if (result || !once("lost-after-create")) return result;
    lose(session);
    return CKR_SESSION_HANDLE_INVALID;
}

static rv create_object(ulong session, struct attribute *attributes, ulong count, ulong *object) {
    struct attribute *value = find(attributes, count, CKA_VALUE), *token = find(attributes, count, CKA_TOKEN);
    int places = token && *(unsigned char *)token->value;
    if (is_on("no-data-objects")) return CKR_ATTRIBUTE_VALUE_INVALID;
    rv failed = places ? before_placing(session) : 0;
    if (failed) return failed;
    if (is_on("value-changes") && value) value->length--;
    rv result = real->call[CreateObject](session, attributes, count, object);
    if (is_on("value-changes") && value) value->length++;
    return places ? after_placing(session, result) : result;
}

static rv copy_object(ulong session, ulong object, struct attribute *attributes, ulong count, ulong *copy) {
    if (is_on("no-copies")) return CKR_FUNCTION_NOT_SUPPORTED;
    rv failed = before_placing(session);
    if (failed) return failed;
    return after_placing(session, real->call[CopyObject](session, object, attributes, count, copy));
}

static rv destroy_object(ulong session, ulong object) {
    struct session_info info;
    char path[4096];
    FILE *note;
    unsigned char on_token = 1;
    struct attribute token = { CKA_TOKEN, &on_token, 1 };
    /* What lives in a session only is no anchor yet. */
    if (!real->call[GetAttributeValue](session, object, &token, 1ul) && !on_token)
        return real->call[DestroyObject](session, object);
    if (is_on("destroy-fails")) return CKR_ACTION_PROHIBITED;
    if (object == seen_as_key && !on("key-destroyed", path) && (note = fopen(path, "w"))) fclose(note);
    if (once("lost-before-destroy") && real->call[GetSessionInfo](session, &info) == 0)
        real->call[CloseAllSessions](info.slot);
    rv result = real->call[DestroyObject](session, object);
    if (!result && once("lost-after-destroy") && real->call[GetSessionInfo](session, &info) == 0) {
        real->call[CloseAllSessions](info.slot);
        return CKR_SESSION_HANDLE_INVALID;
    }
    return result;
}

static rv encrypt_init(ulong session, struct mechanism *mechanism, ulong key) {
    static const unsigned char zero[12];
    rv result = before(session);
    if (result) return result;
    if (mechanism->type == CKM_AES_GCM) {
        struct gcm *gcm = mechanism->parameter;
        if (is_on("token-iv") || is_on("constant-token-iv")) {
            if (gcm->iv_length != 12 || memcmp(gcm->iv, zero, 12)) return CKR_MECHANISM_PARAM_INVALID;
            if (is_on("token-iv") && getrandom(gcm->iv, 12, 0) != 12) return CKR_DEVICE_REMOVED;
            if (is_on("constant-token-iv")) memset(gcm->iv, 7, 12);
        }
        if (is_on("ignore-aad")) gcm->aad_length = 0;
    }
    return real->call[EncryptInit](session, mechanism, key);
}

static rv decrypt_init(ulong session, struct mechanism *mechanism, ulong key) {
    rv result = before(session);
    if (result) return result;
    if (mechanism->type == CKM_AES_GCM && is_on("ignore-aad")) ((struct gcm *)mechanism->parameter)->aad_length = 0;
    return real->call[DecryptInit](session, mechanism, key);
}

static rv sign_init(ulong session, void *mechanism, ulong key) {
    rv result = before(session);
    return result ? result : real->call[SignInit](session, mechanism, key);
}

static rv sign(ulong session, void *data, ulong length, unsigned char *signature, ulong *signature_length) {
    rv result = real->call[Sign](session, data, length, signature, signature_length);
    if (signature && is_on("bad-signature")) signature[40] ^= 1;
    return result;
}

rv C_GetFunctionList(struct list **result) {
    void *library = dlopen(REAL_MODULE, RTLD_NOW | RTLD_LOCAL);
    function get_list = library ? (function)dlsym(library, "C_GetFunctionList") : NULL;
    if (!get_list || get_list(&real)) return CKR_DEVICE_REMOVED;
    faulty = *real;
    faulty.call[GetSlotList] = get_slot_list;
    faulty.call[GetTokenInfo] = get_token_info;
    faulty.call[OpenSession] = open_session;
    faulty.call[GetSessionInfo] = get_session_info;
    faulty.call[Login] = login;
    faulty.call[GetAttributeValue] = get_attribute_value;
    faulty.call[GenerateKey] = generate_key;
    faulty.call[GenerateKeyPair] = generate_key_pair;
    faulty.call[FindObjectsInit] = find_objects_init;
    faulty.call[CreateObject] = create_object;
    faulty.call[CopyObject] = copy_object;
    faulty.call[DestroyObject] = destroy_object;
    faulty.call[EncryptInit] = encrypt_init;
    faulty.call[DecryptInit] = decrypt_init;
    faulty.call[SignInit] = sign_init;
    faulty.call[Sign] = sign;
    *result = &faulty;
    return 0;
}
