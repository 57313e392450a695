// SPDX-License-Identifier: Apache-2.0
#include "xen/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace colo::xen {
namespace {

// Xen has 15 bits for it.
constexpr DomainId kMaxDomain = 0x7fef;

std::optional<DomainId> number(const std::string& text)
{
    DomainId value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value > kMaxDomain) return std::nullopt;
    return value;
}

Result<std::string> name_of(Store& store, const std::string& id)
{
    auto name = store.read("/local/domain/" + id + "/name");
    if (!name) return name.error();
    return name->value_or("");
}

}  // namespace

Result<DomainId> find_domain(Store& store, const std::string& name_or_id)
{
    if (name_or_id.empty()) return make_error(Errc::invalid, "a domain without a name");
    auto ids = store.list("/local/domain");
    if (!ids) return with_context("look for domain " + name_or_id, ids.error());
    std::string known;
    for (const std::string& id : *ids) {
        const auto domain = number(id);
        if (!domain || *domain == 0) continue;
        auto name = name_of(store, id);
        if (!name) return with_context("look for domain " + name_or_id, name.error());
        // A name that is a number of another domain loses: ids are given out by the hypervisor.
        if (id == name_or_id || (*name == name_or_id && std::find(ids->begin(), ids->end(), name_or_id) == ids->end())) return *domain;
        known += fmt::format("{}{} ({})", known.empty() ? "" : ", ", *name, id);
    }
    return make_error(Errc::invalid, fmt::format("there is no domain {}; {}", name_or_id, known.empty() ? "none runs" : "there are: " + known));
}

Result<std::optional<DomainId>> named_domain(Store& store, const std::string& name)
{
    const auto found = find_domain(store, name);
    if (found) return std::optional(*found);
    if (found.error().code == Errc::invalid) return std::optional<DomainId>();
    return found.error();
}

Result<int> model_pid(Store& store, DomainId domain)
{
    const auto text = store.read(fmt::format("/local/domain/{}/image/device-model-pid", domain));
    if (!text) return text.error();
    int pid = 0;
    if (*text) (void)std::from_chars((*text)->data(), (*text)->data() + (*text)->size(), pid);
    return pid > 1 ? pid : 0;
}

}  // namespace colo::xen
