// SPDX-License-Identifier: Apache-2.0
// The fuzz targets of the proxy in the ordinary run: the kept corpus, then mutations of it from fixed
// seeds.
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/proxy_targets.h"

#include <gtest/gtest.h>

namespace colo::fuzz {
namespace {

class HostileFrames : public testing::TestWithParam<ProxyTarget> {};

TEST_P(HostileFrames, CorpusAndMutations)
{
    const auto corpus = corpus_of(std::filesystem::path(COLO_FUZZ_CORPUS) / GetParam().name);
    ASSERT_FALSE(corpus.empty());
    for (const Bytes& input : corpus) GetParam().run(input);
    constexpr std::size_t kRuns = 3000;  // some seconds with a sanitizer
    Mutator mutator(7);
    for (std::size_t i = 0; i < kRuns; ++i)
        GetParam().run(mutator.mutate(corpus[i % corpus.size()], corpus[i * 7 / 3 % corpus.size()]));
}

INSTANTIATE_TEST_SUITE_P(Targets, HostileFrames, testing::ValuesIn(kProxyTargets),
                         [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace colo::fuzz
